// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"sandboxctl.dev/actual"
)

// How soon the daemon acts on a change of one manifest among thousands, and what
// it takes to keep them: from the rename of the manifest to the record that says
// what is done about it. `make reaction` does it with ten thousand.
func TestReaction(t *testing.T) {
	requireHost(t)
	n, changes := 1000, 10
	if v := os.Getenv("SANDBOXCTL_REACTION"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
		changes = 100
	}
	h := daemonHost(t)
	many := filepath.Join(h.work, "many")
	h.must(os.Mkdir(many, 0o755))
	for i := range n {
		text := fmt.Sprintf("apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: s%d}\nspec:\n  root: {host: {}}\n  command: [sleep, '1000']\n  suspend: true\n", i)
		h.must(os.WriteFile(filepath.Join(many, fmt.Sprintf("s%d.yaml", i)), []byte(text), 0o644))
	}
	h.must(os.Rename(many, filepath.Join(h.manifests, "many")))
	spec := func(v int) string {
		return fmt.Sprintf("  overlay: none\n  command: [/bin/busybox, sleep, '%d']\n  terminationGracePeriod: 0s\n", 10000+v)
	}
	h.drop("steady", spec(0))
	h.drop("probe", spec(0))
	running := func(name string, attempt int64) *actual.Record {
		var rec *actual.Record
		h.until(name, func() bool {
			rec, _, _ = h.store.Get(name)
			return rec != nil && rec.Phase == actual.PhaseRunning && rec.Attempt == attempt
		})
		return rec
	}
	steady := running("steady", 1)
	rec := running("probe", 1)
	var took []time.Duration
	before := cpu(t, h.daemon.Process.Pid)
	for i := range changes {
		uid, old := rec.UID, rec.Sentry.PID
		at := h.drop("probe", spec(i+1))
		h.until("a reaction", func() bool {
			r, _, err := h.store.Get("probe")
			h.must(err)
			if r == nil || r.UID != uid {
				h.must(errors.New("it was forgotten"))
			}
			return r.Phase != actual.PhaseRunning || r.Sentry.PID != old
		})
		took = append(took, time.Since(at))
		rec = running("probe", int64(i+2))
	}
	used := (cpu(t, h.daemon.Process.Pid) - before) / time.Duration(changes)
	slices.Sort(took)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.daemon.Process.Pid))
	h.must(err)
	memory := regexp.MustCompile(`Vm(?:HWM|RSS):\s*\d+ kB`).FindAllString(string(status), -1)
	t.Logf("%d manifests, %d changes: p50 %s, p99 %s; the daemon took %s of processor time for each (with a stop, a start and the looks in between), %v", n, changes, took[len(took)/2], took[(len(took)*99-1)/100], used, memory)
	if rec, _, err := h.store.Get("steady"); err != nil || *rec.Sentry != *steady.Sentry || rec.App().Restarts != 0 {
		t.Errorf("the other sandbox was touched: %+v %v", rec, err)
	}
}
