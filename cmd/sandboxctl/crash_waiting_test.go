// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/warm"
)

// waitingPoints are the crash points that a daemon which runs once does not pass: no process
// waits for it.
var waitingPoints = append([]crashpoint.Point{crashpoint.WaitingStart, crashpoint.WaitingRecord, crashpoint.WaitingHand}, warmPoints...)

// warmPoints are those of the life of a warm sentry. A start comes to all but the first.
var warmPoints = []crashpoint.Point{crashpoint.WarmDirectory, crashpoint.WarmClaim, crashpoint.WarmCreate, crashpoint.WarmMove, crashpoint.WarmStart}

// word is the manifest of a sandbox that may take processes that wait. Its application writes
// a word.
func (w *crashWorld) word(word string) {
	w.Helper()
	w.manifest("web", "  command: [/bin/sh, -c, 'echo "+word+" >> /data/runs; exec /bin/busybox sleep 100000']\n"+
		"  volumes: [{name: data, mountPath: /data, hostPath: "+w.path("data")+"}]\n  terminationGracePeriod: 0s\n  init: false\n")
}

// stays starts a daemon that keeps processes waiting as the policy says, to be killed at a moment.
func (w *crashWorld) stays(at moment, keeps string) (ended chan error) {
	w.Helper()
	program, err := crashable()
	must(w.T, err)
	must(w.T, os.WriteFile(w.path("points/plan"), []byte(at.String()), 0o600))
	must(w.T, os.WriteFile(w.path("points/trace"), nil, 0o600))
	policy, err := os.ReadFile(w.path("policy.yaml"))
	must(w.T, err)
	must(w.T, os.WriteFile(w.path("policy.yaml"), append(policy, keeps+"\n"...), 0o644))
	cmd := exec.Command(program, "--manifests", w.path("m"), "--state", w.path("s"), "--policy", w.path("policy.yaml"), "daemon", "--sentry", filepath.Join(binDir, companion.SentryName))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SANDBOXCTL_CRASHPOINTS=" + w.path("points")}
	must(w.T, cmd.Start())
	ended = make(chan error, 1)
	done := make(chan struct{})
	go func() { ended <- cmd.Wait(); close(done) }()
	w.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGKILL)
		<-done
	})
	return ended
}

// A daemon that is killed at any moment of the life of a process that waits leaves none, and
// a sandbox that was about to take one runs once.
func TestCrashWaiting(t *testing.T) {
	requireHost(t)
	_, err := crashable()
	must(t, err)
	for _, p := range waitingPoints {
		keeps, times, starts := "warm: 2", []int{1, 2}, p == crashpoint.WaitingHand
		if slices.Contains(warmPoints, p) {
			keeps, times, starts = "warm: 0\nwarmKernels: 1", times[:1], p != crashpoint.WarmDirectory
		}
		for _, when := range []string{"before", "after"} {
			for _, n := range times {
				at := moment{when: when, point: string(p), n: n}
				t.Run(strings.ReplaceAll(at.String(), " ", "_"), func(t *testing.T) {
					t.Parallel()
					w := newCrashWorld(t)
					ended := w.stays(at, keeps)
					words := w.claim(ended, starts)
					w.converge()
					rec := w.rec()
					w.settled()
					if n := waits(w.path("s")); n != 0 {
						t.Errorf("%d wait", n)
					}
					if ids, err := os.ReadFile(w.path("s/waiting.json")); err == nil {
						t.Errorf("on record: %s", ids)
					}
					if left, err := os.ReadDir(w.path("s/" + pair.WarmDir)); err == nil && len(left) > 0 {
						t.Errorf("%d warm sentries have left their files", len(left))
					}
					if len(words) == 0 {
						return
					}
					if rec == nil || rec.Phase != actual.PhaseRunning {
						t.Fatalf("the record is %+v", rec)
					}
					last := words[len(words)-1]
					w.until("the application was started", func() bool { return slices.Contains(strings.Fields(w.runs()), last) })
					for i, word := range strings.Fields(w.runs()) {
						if i >= len(words) || words[i] != word {
							t.Errorf("the application has written %q, expected some of %q in their order, each once", w.runs(), words)
							break
						}
					}
				})
			}
		}
	}
}

// A daemon that is killed when a sandbox has taken what waited, and its gates are open, leaves
// that to the next one as it leaves any other: that one starts its application, in the sentry
// that was taken. Nothing of it is in the group of those that wait, which is emptied.
func TestCrashClaimed(t *testing.T) {
	requireHost(t)
	_, err := crashable()
	must(t, err)
	for _, at := range []moment{{when: "after", point: string(crashpoint.SentryGate), n: 1}, {when: "before", point: string(crashpoint.StartRoot), n: 1}} {
		t.Run(strings.ReplaceAll(at.String(), " ", "_"), func(t *testing.T) {
			t.Parallel()
			w := newCrashWorld(t)
			ended := w.stays(at, "warm: 2")
			// The first has been offered, or the second were not made.
			w.until("two wait", func() bool { return waits(w.path("s")) == 2 })
			dir, err := os.Open(w.path("s"))
			must(t, err)
			defer dir.Close()
			ids, err := warm.Read(dir)
			must(t, err)
			w.word("once")
			w.dies(ended, time.Minute)
			rec := w.rec()
			if rec == nil || rec.Sentry == nil || !slices.Contains(ids, *rec.Sentry) {
				t.Fatalf("none of %v was taken: %+v", ids, rec)
			}
			w.converge()
			after := w.rec()
			if after.Phase != actual.PhaseRunning || after.Attempt != rec.Attempt || after.Sentry == nil || after.Sentry.PID != rec.Sentry.PID {
				t.Errorf("the start was lost: attempt %d with %v is %s, attempt %d with %v", rec.Attempt, rec.Sentry, after.Phase, after.Attempt, after.Sentry)
			}
			w.until("the application was started", func() bool { return w.runs() != "" })
			if got := strings.TrimSpace(w.runs()); got != "once" {
				t.Errorf("the application has written %q", got)
			}
			w.settled()
		})
	}
}

// until waits for something.
func (w *crashWorld) until(what string, ok func() bool) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("not within a minute: %s", what)
		}
	}
}

// claim has sandboxes take what waits until the daemon is dead, and returns what they were to
// write: a start that comes before a process was prepared takes none.
func (w *crashWorld) claim(ended chan error, starts bool) (words []string) {
	w.Helper()
	if !starts {
		w.dies(ended, time.Minute)
		return nil
	}
	for i := range 20 {
		w.until("processes wait, or the daemon is dead", func() bool { return waits(w.path("s")) > 0 || len(ended) > 0 })
		words = append(words, fmt.Sprintf("w%d", i))
		w.word(words[i])
		if w.dies(ended, 0) {
			return words
		}
		w.until("it runs, or the daemon is dead", func() bool {
			return len(ended) > 0 || slices.Contains(strings.Fields(w.runs()), words[i])
		})
		if w.dies(ended, 0) {
			return words
		}
	}
	w.Fatal("no start has come to the moment")
	return nil
}

// dies waits for the death of the daemon, which has killed itself.
func (w *crashWorld) dies(ended chan error, patience time.Duration) bool {
	w.Helper()
	var err error
	if patience > 0 {
		select {
		case err = <-ended:
		case <-time.After(patience):
			w.Fatal("the daemon has not come to the moment")
		}
	} else {
		select {
		case err = <-ended:
		default:
			return false
		}
	}
	if err == nil || !strings.Contains(err.Error(), "killed") {
		w.Fatalf("the daemon ended: %v", err)
	}
	return true
}
