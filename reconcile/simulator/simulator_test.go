// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// inBubble runs a script in a bubble of its own time.
func inBubble(t *testing.T, seed uint64, events []event, mutant string, trace bool) (r *result) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { r = simulate(seed, events, mutant, trace) })
	return r
}

// perRun is how many events a run has.
const perRun = 120

// shrink takes away events, and what they are late by, as long as what is left
// fails in the same way, in the same order of steps or another: to take an event
// away changes what is decided by chance after it. It returns the script and the
// seed of its order.
func shrink(t *testing.T, seed uint64, events []event, mutant string) ([]event, uint64) {
	t.Helper()
	want := way(inBubble(t, seed, events, mutant, false).err)
	tries := 0
	fails := func(es []event) bool {
		for s := range uint64(20) {
			if tries++; tries > 3000 {
				return false
			}
			order := seed + s*1000003
			if way(inBubble(t, order, es, mutant, false).err) == want {
				seed = order
				return true
			}
		}
		return false
	}
	for size := len(events) / 2; size > 0; {
		smaller := false
		for i := 0; i+size <= len(events); {
			if less := slices.Delete(slices.Clone(events), i, i+size); fails(less) {
				events, smaller = less, true
				continue
			}
			i += size
		}
		if !smaller || size > len(events) {
			size /= 2
		}
	}
	for i := range events {
		less := slices.Clone(events)
		if less[i].After = 0; events[i].After > 0 && fails(less) {
			events = less
		}
	}
	return events, seed
}

var particular = regexp.MustCompile(`[0-9]+`)

// way is how a run fails, without what is particular to it.
func way(err error) string {
	if err == nil {
		return ""
	}
	s := particular.ReplaceAllString(err.Error(), "")
	return s[:min(len(s), 60)]
}

// report says what failed, shrunk, with the command that replays it.
func report(t *testing.T, seed uint64, n int) string {
	t.Helper()
	err := inBubble(t, seed, script(seed, n), "", false).err
	events, order := shrink(t, seed, script(seed, n), "")
	r := inBubble(t, order, events, "", true)
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d fails: %v\nreplay it with: make sim SEED=%d EVENTS=%d\nthese %d events make it, in the order of seed %d:\n", seed, err, seed, n, len(events), order)
	for _, e := range events {
		fmt.Fprintln(&b, "  ", e)
	}
	fmt.Fprintf(&b, "which fail with: %v\n", r.err)
	for _, line := range r.trace[max(0, len(r.trace)-120):] {
		fmt.Fprintln(&b, line)
	}
	return b.String()
}

// campaign makes runs, one for each seed, until they have made the steps, or the
// time is over.
func campaign(t *testing.T, first uint64, steps int, until time.Time, workers int) {
	var mu sync.Mutex
	var sum stats
	var failed []uint64
	next := first
	began := time.Now()
	t.Run("runs", func(t *testing.T) {
		for w := range workers {
			t.Run(strconv.Itoa(w), func(t *testing.T) {
				t.Parallel()
				for {
					mu.Lock()
					seed := next
					next++
					enough := sum.Steps >= steps || len(failed) > 0 || !until.IsZero() && time.Now().After(until)
					mu.Unlock()
					if enough {
						return
					}
					r := inBubble(t, seed, script(seed, perRun), "", false)
					mu.Lock()
					sum.add(&r.stats)
					if r.err != nil {
						failed = append(failed, seed)
					}
					mu.Unlock()
				}
			})
		}
	})
	took := time.Since(began)
	t.Logf("%d steps in %s: %.0f a second; %+v", sum.Steps, took.Round(time.Millisecond), float64(sum.Steps)/took.Seconds(), sum)
	for _, seed := range failed {
		t.Error(report(t, seed, perRun))
	}
	// What was never tried proves nothing.
	if len(failed) == 0 && steps >= 200000 {
		for what, n := range map[string]int{
			"crashes": sum.Crashes, "crashes in the recovery from a crash": sum.DoubleCrashes, "power cuts": sum.PowerCuts, "things lost in them": sum.Lost,
			"reboots": sum.Reboots, "faults": sum.Faults, "pids given again": sum.PIDReuses, "kills": sum.Kills, "damaged records": sum.Quarantined, "resumed starts": sum.Resumes,
			"creates": sum.Creates, "destroys": sum.Destroys, "forgets": sum.Forgets, "removes": sum.Removes, "acknowledged commands": sum.Acks, "daemons stopped": sum.Stops,
			"pulls": sum.Pulls, "pulls that fail": sum.PullFailures, "pulls that are cancelled": sum.PullsCancelled, "refreshes": sum.Refreshes,
			"deadlines": sum.Deadlines, "retired records": sum.Retires,
		} {
			if n < 20 {
				t.Errorf("%d %s: this is no test of them", n, what)
			}
		}
	}
}

func fromEnv(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// TestSimulator makes a million steps (with the race detector, which makes each
// much slower, a few); `make sim` makes more, or replays one.
func TestSimulator(t *testing.T) {
	seed := fromEnv(t, "SIM_SEED", 1)
	if n := fromEnv(t, "SIM_EVENTS", 0); n > 0 {
		if r := inBubble(t, seed, script(seed, int(n)), "", false); r.err != nil {
			t.Fatal(report(t, seed, int(n)))
		}
		t.Logf("seed %d does not fail", seed)
		return
	}
	steps := 1000000
	if raceDetector {
		steps = 30000
	}
	var until time.Time
	if s := fromEnv(t, "SIM_SECONDS", 0); s > 0 {
		until = time.Now().Add(time.Duration(s) * time.Second)
	}
	campaign(t, seed, int(fromEnv(t, "SIM_STEPS", uint64(steps))), until, int(fromEnv(t, "SIM_WORKERS", 2)))
}

// The same seed gives the same run, step by step; another gives another.
func TestReplays(t *testing.T) {
	t.Parallel()
	seeds := uint64(20)
	if raceDetector {
		seeds = 3
	}
	for seed := range seeds {
		a := inBubble(t, seed, script(seed, perRun), "", true)
		b := inBubble(t, seed, script(seed, perRun), "", true)
		for i := range a.trace {
			if i >= len(b.trace) || a.trace[i] != b.trace[i] {
				t.Fatalf("seed %d, line %d: %s, then %s", seed, i, a.trace[i], b.trace[min(i, len(b.trace)-1)])
			}
		}
		if a.stats != b.stats {
			t.Errorf("seed %d: %+v, then %+v", seed, a.stats, b.stats)
		}
		if c := inBubble(t, seed+1000, script(seed, perRun), "", false); c.stats == a.stats {
			t.Errorf("seed %d and %d give the same run", seed, seed+1000)
		}
	}
}

// What fails is shrunk to what makes it fail, and that fails in the same way.
func TestShrinks(t *testing.T) {
	t.Parallel()
	for _, mutant := range []string{"no-dir-fsync", "removed-before-kill"} {
		seed := uint64(1)
		for inBubble(t, seed, script(seed, perRun), mutant, false).err == nil {
			seed++
		}
		events, order := shrink(t, seed, script(seed, perRun), mutant)
		r := inBubble(t, order, events, mutant, false)
		t.Logf("%s: %v: %v", mutant, r.err, events)
		if r.err == nil || len(events) > 10 {
			t.Errorf("%s: %d events: %v", mutant, len(events), r.err)
		}
		if r := inBubble(t, order, events, "", false); r.err != nil {
			t.Errorf("without the mistake: %v", r.err)
		}
	}
}
