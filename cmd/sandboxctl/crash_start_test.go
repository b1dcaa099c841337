// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
)

// A command that can't be executed is told as such whenever the daemon dies in its
// start: not as an application that has ended with exit code 127.
func TestCrashStartFailed(t *testing.T) {
	requireHost(t)
	_, err := crashable()
	must(t, err)
	for _, at := range []moment{momentOf("after sentry-gate"), momentOf("before start-root"), momentOf("after start-root"), momentOf("before kill-sentry"), momentOf("after kill-sentry")} {
		for what, c := range map[string]struct{ command, policy, want string }{
			"missing":     {"/bin/nosuch", "Always", "command not found in the sandbox: /bin/nosuch"},
			"not in PATH": {"nosuch", "OnFailure", "command not found in the sandbox: nosuch"},
			"mode":        {"/bin/text", "Never", "its mode forbids it"},
			"interpreter": {"/bin/script", "Never", "/no/interpreter"},
			"directory":   {"/bin/", "Always", "directory"},
		} {
			t.Run(at.when+" "+at.point+"/"+what, func(t *testing.T) {
				t.Parallel()
				w := newCrashWorld(t)
				must(t, os.WriteFile(w.path("root/bin/text"), []byte("text"), 0o644))
				must(t, os.WriteFile(w.path("root/bin/script"), []byte("#!/no/interpreter\n"), 0o755))
				w.manifest("web", "  command: ["+c.command+"]\n  restartPolicy: "+c.policy+"\n  backoff: {initial: 1h, max: 1h}\n")
				if trace, killed := w.armed(at, false); !killed {
					t.Fatalf("the daemon was not killed; it has converged: %v; it went through %v", w.converged, trace)
				}
				for range 2 {
					cmd, out := w.once(filepath.Join(binDir, "sandboxctl"))
					if err := cmd.Wait(); err == nil {
						t.Fatalf("converged\n%s", out)
					}
				}
				rec := w.rec()
				if rec == nil || rec.App().LastExit == nil || rec.App().LastExit.Code != 0 || !strings.Contains(rec.App().LastExit.Message, c.want) {
					t.Errorf("on record: %+v", rec.App().LastExit)
				}
				if rec.App().Failures != 1 || rec.Phase != actual.PhaseStopped || rec.App().Completed {
					t.Errorf("%d failures, phase %s, completed %v", rec.App().Failures, rec.Phase, rec.App().Completed)
				}
				events, err := exec.Command(filepath.Join(binDir, "sandboxctl"), "--manifests", w.path("m"), "--state", w.path("s"), "events", "-o", "json").Output()
				must(t, err)
				if !strings.Contains(string(events), c.want) || strings.Contains(string(events), "exit code 127") {
					t.Errorf("events:\n%s", events)
				}
			})
		}
	}
}

// The time that an application has run while no daemon knew of it is a part of its
// activeDeadline.
func TestCrashStartCounted(t *testing.T) {
	requireHost(t)
	_, err := crashable()
	must(t, err)
	t.Parallel()
	w := newCrashWorld(t)
	w.manifest("web", "  command: [/bin/busybox, sleep, '100000']\n  terminationGracePeriod: 0s\n  activeDeadline: 1h\n")
	if trace, killed := w.armed(momentOf("after start-root"), false); !killed {
		t.Fatalf("the daemon was not killed; it went through %v", trace)
	}
	died := time.Now()
	time.Sleep(time.Second)
	w.converge()
	rec := w.rec()
	if rec == nil || rec.Phase != actual.PhaseRunning || rec.Attempt != 1 || rec.App().Active == nil {
		t.Fatalf("it was not adopted: %+v", rec)
	}
	if from := rec.App().Active.From.Wall; from.After(died) || from.Before(rec.Start.BeganAt) || !from.Equal(rec.App().StartedAt) {
		t.Errorf("it counts from %s, started at %s; its start began at %s, and the daemon died at %s", from, rec.App().StartedAt, rec.Start.BeganAt, died)
	}
	w.settled()
}
