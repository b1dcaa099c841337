// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/warm"
	"sandboxctl.dev/launcher/wire"
)

// waitingList is the list of what processes that wait for a sandbox have. It is compared
// with what is seen as a whole: it shares nothing with that of sandboxes.
const waitingList = "before"

// capsWaiting is capsWriter and SYS_ADMIN, which attaches what is served.
const capsWaiting = "000000000020001f"

// waiting looks at what waits for a sandbox, from outside: which privileges it has, what of
// the host it can see, and what it has open. What it can do with that is TestPrepared.
func (w *isolation) waiting(t *testing.T) {
	t.Helper()
	w.h.waiting()
	dir, err := os.Open(w.h.state)
	must(t, err)
	defer dir.Close()
	ids, err := warm.Read(dir)
	must(t, err)
	seen := map[string]int{}
	for _, id := range ids {
		proc := fmt.Sprintf("/proc/%d", id.PID)
		cmdline, err := os.ReadFile(proc + "/cmdline")
		must(t, err)
		args := strings.Split(string(cmdline), "\x00")
		if len(args) < 3 || args[0] != wire.WaitingName || args[2] != w.h.state {
			t.Fatalf("it does not wait: %q", args)
		}
		who := args[1]
		seen[who]++
		pids := family(t, id.PID)
		w.process(t, waitingList, who, pids[0], &actual.Record{Name: waitingList})
		for _, pid := range pids[1:] {
			w.process(t, waitingList, "helper of "+who, pid, &actual.Record{Name: waitingList})
		}
		w.onlyItsOwnDirectory(t, who, proc)
	}
	if seen["sentry"] < 2 || seen["gofer"] != seen["sentry"] {
		t.Errorf("there wait %v", seen)
	}
	facts := w.waitingFacts()
	if *updateIsolation {
		text := "# What a sentry and a gofer have that wait for a sandbox, and all of it.\n" + strings.Join(facts, "\n") + "\n"
		must(t, os.WriteFile(filepath.Join(isolationDir, waitingList+".txt"), []byte(text), 0o644))
	}
	list := readList(t, waitingList)
	for _, f := range facts {
		if !slices.Contains(list, f) {
			t.Errorf("not allowed: %s", f)
		}
	}
	for _, f := range list {
		if !slices.Contains(facts, f) {
			t.Errorf("not seen: %s", f)
		}
	}
	waitingLaws(t, facts)
}

// waitingFacts are those that are the same in every run.
func (w *isolation) waitingFacts() (out []string) {
	task := regexp.MustCompile(`descriptor r (/proc)?/\d+/task/\d+/mountinfo$`)
	for _, f := range w.facts[waitingList] {
		if strings.Contains(f, ": in no cgroup of its own: ") {
			continue // it has none before it has a sandbox
		}
		out = append(out, task.ReplaceAllString(f, "descriptor r MOUNTINFO"))
	}
	return sortedFacts(out)
}

// waitingLaws hold whatever the list says.
func waitingLaws(t *testing.T, facts []string) {
	t.Helper()
	for key, want := range map[string]string{
		"gofer: CapEff": capsWaiting, "gofer: CapPrm": capsWaiting, "gofer: CapBnd": capsNone, "gofer: NoNewPrivs": "1",
		"sentry: CapEff": capsNone, "sentry: CapPrm": capsNone, "sentry: Uid": "65534 65534 65534 65534",
		"sentry: namespace user": "own", "gofer: namespace user": "own", "sentry: namespace net": "own", "gofer: namespace net": "GOFERS",
		"sentry: namespace mnt": "own", "gofer: namespace mnt": "own", "sentry: namespace pid": "own", "gofer: namespace pid": "own",
		// Nothing is mounted in its root, and nothing is in it but where a mount was.
		"gofer: mount": "/ rw,nosuid,nodev,noexec of /", "gofer: root": "/", "gofer: cwd": "/", "gofer: environment": `""`, "sentry: environment": `""`,
		"gofer: descriptor r": "MOUNTINFO", "gofer: descriptor path": "/",
	} {
		found := false
		for _, f := range facts {
			if got, ok := strings.CutPrefix(f, key+" "); ok {
				found = true
				if got != want {
					t.Errorf("%s is %q, expected %q", key, got, want)
				}
			}
		}
		if !found {
			t.Errorf("%s was not seen", key)
		}
	}
}

// onlyItsOwnDirectory fails the test if a directory is open but that of its own descriptors.
func (w *isolation) onlyItsOwnDirectory(t *testing.T, who, proc string) {
	t.Helper()
	var own unix.Stat_t
	must(t, unix.Stat(proc+"/fd", &own))
	fds, err := os.ReadDir(proc + "/fd")
	must(t, err)
	for _, fd := range fds {
		var st unix.Stat_t
		if err := unix.Stat(proc+"/fd/"+fd.Name(), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue // closed by now, or none
		}
		if st.Ino != own.Ino || st.Dev != own.Dev {
			target, _ := os.Readlink(proc + "/fd/" + fd.Name())
			t.Errorf("%s: descriptor %s is a directory of the host, %s", who, fd.Name(), target)
		}
	}
}
