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

	"sandboxctl.dev/actual"
)

// What the kernel says of the processes of a sandbox, held against
// docs/isolation.md: everything that is not allowed here is a hole.

const (
	capsNone   = "0000000000000000"
	capsReader = "0000000000000006" // DAC_OVERRIDE, DAC_READ_SEARCH
	capsWriter = "000000000000001f" // and CHOWN, FOWNER, FSETID
	capsDirect = "000000000008001f" // and SYS_PTRACE
)

// profile is what one process may be.
type profile struct {
	uid, caps, bounding string
	ownUserns           bool
	fds                 *regexp.Regexp
	mounts              func(fields []string) bool
}

func TestIsolation(t *testing.T) {
	requireHost(t)
	marker, err := os.Create(filepath.Join(t.TempDir(), "inherited-by-the-daemon"))
	if err != nil {
		t.Fatal(err)
	}
	defer marker.Close()
	h := benchHost(t, marker)
	shared := filepath.Join(h.work, "shared")
	h.must(os.Mkdir(shared, 0o755))
	const app = "  command: [/bin/busybox, sleep, '1000']\n  terminationGracePeriod: 0s\n"
	volume := fmt.Sprintf("  volumes: [{name: v, mountPath: /mnt, hostPath: %s, readOnly: %%v}]\n", shared)
	for name, c := range map[string]struct {
		spec           string
		sentryID, caps string
		writable       bool
	}{
		"plain":    {app, "65534", capsNone, true},
		"overlay":  {app + "  overlay: memory\n", "65534", capsNone, false},
		"readonly": {app + "  overlay: memory\n" + fmt.Sprintf(volume, true), "65534", capsNone, false},
		"volume":   {app + "  overlay: memory\n" + fmt.Sprintf(volume, false), "65534", capsNone, true},
		"mapped": {
			app + "  overlay: memory\n  idMappings: {uids: [{containerID: 0, hostID: 100000, size: 1000}], gids: [{containerID: 0, hostID: 100000, size: 1000}]}\n",
			"65534", capsNone, false,
		},
		"direct": {app + "  fileAccess: direct\n", "0", capsDirect, true},
	} {
		if !strings.Contains(c.spec, "overlay") {
			c.spec += "  overlay: none\n"
		}
		h.drop(name, c.spec)
		var rec *actual.Record
		h.until(name, func() bool {
			rec, _, _ = h.store.Get(name)
			return rec != nil && rec.Phase == actual.PhaseRunning
		})
		t.Run(name, func(t *testing.T) {
			own := regexp.QuoteMeta(h.state + "/sandboxes/" + name)
			sentry := profile{
				uid: c.sentryID, caps: c.caps, bounding: c.caps, ownUserns: c.caps == capsNone,
				fds: regexp.MustCompile(`^(/dev/null|(socket|pipe):\[\d+\]|anon_inode:.*|/memfd:(systrap-memory|runsc-memory|memory-usage).*|/m\d+(/.*)?|` + own + `/exit\.json)$`),
				mounts: func(f []string) bool {
					return f[4] == "/" && strings.HasPrefix(f[5], "ro,") && slices.Contains(f, "tmpfs")
				},
			}
			gofer := profile{
				uid: "0", caps: capsReader, bounding: capsNone,
				fds: regexp.MustCompile(`^(/dev/null|(socket|pipe):\[\d+\]|anon_inode:\[(pidfd|eventpoll|eventfd)\]|/memfd:flipcall_packet_windows.*|/|/m\d+(/.*)?|/1(\.sentry)?\.log|` + own + `/(logs/gofer\.log|gofer-exit\.json))$`),
				mounts: func(f []string) bool {
					safe := strings.Contains(f[5], "nosuid") && strings.Contains(f[5], "nodev")
					ro := strings.HasPrefix(f[5], "ro,")
					switch f[4] {
					case "/":
						return safe && ro && f[3] == "/"
					case "/m0":
						return safe && (ro || c.writable && !strings.Contains(c.spec, "overlay: memory"))
					case "/m1":
						return safe && f[3] == shared && ro != c.writable
					}
					return false
				},
			}
			if c.writable {
				gofer.caps = capsWriter
			}
			if name == "mapped" {
				gofer.uid, gofer.ownUserns = "100000", true
			}
			sentry.check(t, "sentry", rec.Sentry.PID)
			gofer.check(t, "gofer", rec.Gofer.PID)
		})
	}
}

func (p *profile) check(t *testing.T, what string, pid int) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d", pid)
	p.status(t, what, proc)
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil || len(fds) < 5 {
		t.Fatalf("%s: %d descriptors: %v", what, len(fds), err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(proc + "/fd/" + fd.Name())
		if err == nil && !p.fds.MatchString(target) {
			t.Errorf("%s: descriptor %s is %s", what, fd.Name(), target)
		}
	}
	for _, ns := range []string{"mnt", "pid", "ipc", "uts", "net", "cgroup", "user"} {
		theirs, err := os.Readlink(proc + "/ns/" + ns)
		ours, oerr := os.Readlink("/proc/self/ns/" + ns)
		if err != nil || oerr != nil {
			t.Fatalf("%s: %v %v", what, err, oerr)
		}
		if own := theirs != ours; own != (ns != "user" || p.ownUserns) {
			t.Errorf("%s: %s namespace of its own: %v", what, ns, own)
		}
	}
	text, err := os.ReadFile(proc + "/mountinfo")
	if err != nil || len(text) == 0 {
		t.Fatalf("%s: %v", what, err)
	}
	for line := range strings.Lines(string(text)) {
		if !p.mounts(strings.Fields(line)) {
			t.Errorf("%s: mount %s", what, line)
		}
	}
	for file, want := range map[string]string{"environ": "", "root": "/", "cwd": "/"} {
		got, err := os.Readlink(proc + "/" + file)
		if file == "environ" {
			var b []byte
			b, err = os.ReadFile(proc + "/environ")
			got = string(b)
		}
		if err != nil || got != want {
			t.Errorf("%s: %s is %q (%v), expected %q", what, file, got, err, want)
		}
	}
}

// status looks at every thread: privileges are a thread's.
func (p *profile) status(t *testing.T, what, proc string) {
	t.Helper()
	threads, err := filepath.Glob(proc + "/task/*/status")
	if err != nil || len(threads) == 0 {
		t.Fatalf("%s: %v", what, err)
	}
	want := map[string]string{
		"CapInh": capsNone, "CapPrm": p.caps, "CapEff": p.caps, "CapBnd": p.bounding, "CapAmb": capsNone,
		"NoNewPrivs": "1", "Seccomp": "2", "Groups": "", "Uid": strings.Repeat(p.uid+" ", 3) + p.uid, "Gid": strings.Repeat(p.uid+" ", 3) + p.uid,
	}
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		seen := 0
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			w, ok := want[key]
			if !ok {
				continue
			}
			seen++
			if got := strings.Join(strings.Fields(value), " "); got != w {
				t.Errorf("%s: %s of %s is %q, expected %q", what, key, file, got, w)
			}
		}
		if seen != len(want) {
			t.Errorf("%s: %s has %d of %d fields", what, file, seen, len(want))
		}
	}
}
