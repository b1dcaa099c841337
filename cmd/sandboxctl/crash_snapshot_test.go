// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/invariants"
	"sandboxctl.dev/launcher/snapshot"
)

// snapshotPoints are the crash points that no daemon passes: TestCrashSnapshots kills the verbs
// there.
var snapshotPoints = []string{"snapshot-store", "snapshot-make", "snapshot-write", "snapshot-sync", "snapshot-commit", "snapshot-trash"}

// snapshotted has a sandbox that begins from a snapshot of itself when it is started again: its
// application does not write that it was started then.
func snapshotted(w *crashWorld) {
	w.web("a", "0s", "  snapshot: {from: ready, onRestore: {exec: [/bin/sh, -c, 'exit 0']}}\n")
	w.converge()
	w.written("a")
	w.snapshot("", filepath.Join(binDir, "sandboxctl"), "create", "web", "ready")
}

// snapshot runs a verb for snapshots, which must succeed unless it is to be killed.
func (w *crashWorld) snapshot(plan, program string, verb ...string) (string, error) {
	w.Helper()
	must(w.T, os.WriteFile(w.path("points/plan"), []byte(plan), 0o600))
	must(w.T, os.WriteFile(w.path("points/trace"), nil, 0o600))
	cmd := exec.Command(program, append([]string{"--manifests", w.path("m"), "--state", w.path("s"), "--policy", w.path("policy.yaml"), "snapshot"}, verb...)...)
	cmd.Env = append(os.Environ(), "SANDBOXCTL_CRASHPOINTS="+w.path("points"))
	out, err := cmd.CombinedOutput()
	if err != nil && plan == "" {
		w.Fatalf("%v: %v\n%s", verb, err, out)
	}
	return string(out), err
}

// snapshots are the names of those that verify finds as they were made.
func (w *crashWorld) snapshots(program string) (whole []string) {
	w.Helper()
	for line := range strings.Lines(w.verified(program)) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "snapshot/"), " ")
		whole = append(whole, name)
	}
	return whole
}

func (w *crashWorld) verified(program string) string {
	w.Helper()
	out, err := w.snapshot("", program, "verify")
	must(w.T, err)
	return out
}

// Every moment of a verb for snapshots is one at which it may be killed. A snapshot is whole or
// not there, its sandbox goes on, the verb can be called again, and what is left goes.
func TestCrashSnapshots(t *testing.T) {
	requireHost(t)
	program, err := crashable()
	must(t, err)
	w := newCrashWorld(t)
	running(w)
	w.snapshot("", program, "create", "web", "first")
	moments := map[string][]moment{"create": firstAndLast(t, w.dir)}
	w.snapshot("", program, "rm", "first")
	moments["rm"] = firstAndLast(t, w.dir)
	points := map[string]bool{}
	for verb, all := range moments {
		for _, m := range all {
			points[m.point] = true
			// How many parts a state has is another number each time. What writes a file whole has
			// tests of its own.
			if m.n > 1 || !strings.HasPrefix(m.point, "snapshot-") && m.point != "file-rename" {
				continue
			}
			if m.point == "snapshot-store" && verb == "create" {
				must(t, os.Remove(w.path("s/snapshots")))
			}
			t.Run(verb+" "+m.String(), func(t *testing.T) { w.killedVerb(t, program, verb, m) })
			if have := w.snapshots(program); len(have) > 0 {
				w.snapshot("", program, append([]string{"rm"}, have...)...)
			}
		}
	}
	for _, p := range append([]string{"file-rename"}, snapshotPoints...) {
		if !points[p] {
			t.Errorf("no verb passes %s", p)
		}
	}
}

// killedVerb kills a verb at a moment, looks at what there is, and calls it again.
func (w *crashWorld) killedVerb(t *testing.T, program, verb string, m moment) {
	args := []string{"create", "web", "ready"}
	if verb == "rm" {
		w.snapshot("", program, args...)
		args = []string{"rm", "ready"}
	}
	if out, err := w.snapshot(m.String(), program, args...); err == nil {
		t.Fatalf("it was not killed: %s", out)
	}
	// Also a half of one would be read by this.
	have := w.snapshots(program)
	if len(have) > 0 && !slices.Equal(have, []string{"ready"}) {
		t.Errorf("there is %q", have)
	}
	// It was paused when its client died, perhaps.
	if out, err := exec.CommandContext(t.Context(), program, "--manifests", w.path("m"), "--state", w.path("s"), "exec", "web", "--", "/bin/busybox", "true").CombinedOutput(); err != nil {
		t.Errorf("the sandbox does not go on: %v\n%s", err, out)
	}
	again := (verb == "create") == (len(have) == 0)
	out, err := w.snapshot("again", program, args...)
	if again != (err == nil) {
		t.Errorf("again: %v\n%s", err, out)
	}
	state, err := actual.OpenStore(w.path("s"))
	must(t, err)
	defer state.Close()
	must(t, state.Lock())
	must(t, snapshot.Sweep(t.Context(), state.RootDir()))
	_, err = state.SweepTemps()
	must(t, err)
	sweepAll(t, state)
	found, err := invariants.Check(context.Background(), state, invariants.Options{Settled: true})
	must(t, err)
	must(t, invariants.Err(found))
	left, err := os.ReadDir(w.path("s/snapshots"))
	must(t, err)
	for _, e := range left {
		inside, err := os.ReadDir(w.path("s/snapshots/" + e.Name()))
		must(t, err)
		if len(inside) != 2 || inside[0].Name() != "checkpoint.json" || inside[1].Name() != "state.img" {
			t.Errorf("%s has %v", e.Name(), inside)
		}
	}
}

// restartWeb asks for another start.
func restartWeb(w *crashWorld) {
	s, err := actual.OpenStoreReadOnly(w.path("s"))
	must(w.T, err)
	defer s.Close()
	must(w.T, s.PutRequest(actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "again"}))
}
