// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
)

// startedBy are ways to start the daemon and the OCI runtime that leave their
// mark on a process: limits, umask, niceness, ignored signals.
var startedBy = map[string]string{
	"plain":          "",
	"few files":      "ulimit -n 300",
	"soft files":     "ulimit -S -n 256",
	"small files":    "ulimit -S -f 1000",
	"processor time": "ulimit -S -t 60",
	"signals":        "trap '' HUP INT QUIT TERM USR1 CHLD PIPE",
	"umask, nice":    "umask 077; renice -n 5 $$ >/dev/null",
}

// selfPortrait prints what a program may and what it has inherited.
const selfPortrait = "cat /proc/self/limits; umask; grep ^Sig[BI] /proc/self/status; env; cut -d\\  -f19 /proc/self/stat"

// A sandbox is the same whatever started the daemon.
func TestInheritedByDaemon(t *testing.T) {
	requireHost(t)
	want := ""
	for _, name := range append([]string{"plain"}, keysBut(startedBy, "plain")...) {
		t.Run(name, func(t *testing.T) {
			h := hostStartedBy(t, startedBy[name])
			h.dropRoot("a", "{host: {}}", "  restartPolicy: Never\n  command: [sh, -c, '"+selfPortrait+"; echo end']\n")
			var out []byte
			h.until("the output", func() bool {
				out, _ = h.command("logs", "a").Output()
				return strings.HasSuffix(string(out), "end\n")
			})
			checkPortrait(t, string(out), &want)
			h.dropRoot("b", "{host: {}}", "  command: [sleep, '1000']\n")
			var rec *actual.Record
			h.until("the second sandbox", func() bool {
				rec, _, _ = h.store.Get("b")
				return rec != nil && rec.Phase == actual.PhaseRunning
			})
			// What is executed in it has its limits too.
			out, err := h.command("exec", "b", "--", "sh", "-c", "ulimit -S -n; ulimit -H -n; ulimit -f").Output()
			if got := strings.Fields(string(out)); err != nil || fmt.Sprint(got) != "[1024 1048576 unlimited]" {
				t.Errorf("exec: %v %v", got, err)
			}
			for _, id := range []*process.Identity{rec.Sentry, rec.Gofer} {
				var size, cpu unix.Rlimit
				must(t, unix.Prlimit(id.PID, unix.RLIMIT_FSIZE, nil, &size))
				must(t, unix.Prlimit(id.PID, unix.RLIMIT_CPU, nil, &cpu))
				// Where the hard limit can't be raised, the soft one is as high as it.
				if size.Cur != size.Max || cpu.Cur != cpu.Max {
					t.Errorf("pid %d has the limits of the shell that started the daemon: %v %v", id.PID, size, cpu)
				}
			}
		})
	}
}

func TestInheritedByRuntime(t *testing.T) {
	requireHost(t)
	want := ""
	work := t.TempDir()
	(&host{b: t, work: filepath.Join(work, "b")}).rootfs()
	must(t, os.WriteFile(filepath.Join(work, "b", "config.json"), fmt.Appendf(nil, `{"ociVersion":"1.0.2","root":{"path":"rootfs"},
		"mounts":[{"destination":"/proc","type":"proc","source":"proc"}],"linux":{"namespaces":[{"type":"network"},{"type":"pid"}]},
		"process":{"args":["/bin/busybox","sh","-c",%q],"cwd":"/","user":{"uid":0,"gid":0},"env":["PATH=/bin"]}}`, "/bin/busybox --install -s /bin; "+selfPortrait), 0o644))
	for i, name := range append([]string{"plain"}, keysBut(startedBy, "plain")...) {
		cmd := exec.Command("bash", "-c", startedBy[name]+"\nexec \"$@\"", "bash",
			filepath.Join(binDir, "sandboxctl"), "oci", "--root", filepath.Join(work, "r"), "run", "--bundle", filepath.Join(work, "b"), fmt.Sprint("c", i))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
			continue
		}
		checkPortrait(t, string(out), &want)
	}
}

// checkPortrait compares what a program has printed with the first one, whose
// limits must be those that the documentation names.
func checkPortrait(t *testing.T, got string, want *string) {
	t.Helper()
	if *want == "" {
		*want = got
		files := ""
		for line := range strings.Lines(got) {
			if strings.HasPrefix(line, "Max open files") {
				files = strings.Join(strings.Fields(line)[3:5], " ")
			}
		}
		if files != "1024 1048576" {
			t.Errorf("open files: %q, expected 1024 1048576\n%s", files, got)
		}
	}
	if got != *want {
		t.Errorf("it differs by who started the daemon:\n%s\nexpected\n%s", got, *want)
	}
}

func keysBut(m map[string]string, but string) (out []string) {
	for k := range m {
		if k != but {
			out = append(out, k)
		}
	}
	return out
}
