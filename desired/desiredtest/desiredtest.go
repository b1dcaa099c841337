// SPDX-License-Identifier: Apache-2.0

// Package desiredtest is what the tests of the packages below desired share: a
// manifest to change, the cost of reading a text, and files of other users.
package desiredtest

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Minimal is a manifest with as little as possible in it, of a sandbox named web.
const Minimal = `apiVersion: sandboxctl.dev/v1alpha1
kind: Sandbox
metadata: {name: web}
spec:
  root: {host: {}}
  command: [sh]
`

// With is the minimal manifest with more lines in its spec.
func With(lines ...string) string {
	return Minimal + "  " + strings.Join(lines, "\n  ") + "\n"
}

// Stranger is a user that is neither root nor the one who runs the tests.
const Stranger = 54321

// Must ends a test that can't go on.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What reading a file of the largest size may cost, whatever is in it.
const (
	BudgetTime  = 100 * time.Millisecond
	BudgetAlloc = 32 << 20
)

// FuzzSlower is how many times longer it may take in a program that is
// instrumented to see which inputs are new.
const FuzzSlower = 4

// Cost of reading a text: processor time, which a loaded machine does not add
// to, of the best of some runs, and bytes allocated. No other goroutine may
// allocate meanwhile.
type Cost struct {
	Time  time.Duration
	Alloc uint64
}

// Within says whether the cost is within the budget, which may be some times longer.
func (c Cost) Within(times time.Duration) bool {
	return c.Time < times*Slower*BudgetTime && c.Alloc < BudgetAlloc
}

// Measure runs fn until it was within the budget, at most runs times.
func Measure(tb testing.TB, runs int, fn func()) Cost {
	tb.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	used := func() time.Duration {
		var ru unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &ru); err != nil {
			tb.Fatal(err)
		}
		return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	best := Cost{Time: time.Hour, Alloc: 1 << 62}
	for range runs {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := used()
		fn()
		took := used() - start
		runtime.ReadMemStats(&after)
		best.Time, best.Alloc = min(best.Time, took), min(best.Alloc, after.TotalAlloc-before.TotalAlloc)
		if best.Within(1) {
			break
		}
	}
	return best
}
