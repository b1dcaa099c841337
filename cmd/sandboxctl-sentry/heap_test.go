// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// gcPercent is what is in force.
func gcPercent() uint64 {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// restore brings back what is in force before a test.
func restore(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
}

// The first collection sets the percentage of work, also if it was asked for: a heap
// that has grown to nine times its size would stay that large.
func TestHeapBoots(t *testing.T) {
	restore(t)
	for name, collect := range map[string]func(){
		"settled": debug.FreeOSMemory,
		"much": func() {
			for range 64 {
				garbage = make([]byte, 1<<20)
			}
		},
	} {
		var p pace
		p.boot()
		if got := gcPercent(); got != bootGCPercent {
			t.Fatalf("%s: %d %% while it boots", name, got)
		}
		collect()
		works(t, name)
		p.begin()
	}
}

// works waits until collections are those of work, for the heap that lives.
func works(t *testing.T, name string) {
	t.Helper()
	ok := func() bool {
		want, got := uint64(workPercent(liveHeap())), gcPercent()
		return got >= want*3/4 && got <= want*4/3 && debug.SetMemoryLimit(-1) == math.MaxInt64
	}
	for deadline := time.Now().Add(10 * time.Second); !ok() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
		if gcPercent() <= workGCPercent {
			runtime.GC() // what a collection sets is for the heap that was there before it
		}
	}
	if !ok() {
		t.Errorf("%s: after a collection %d %%, at most %d bytes, expected about %d %% without a limit", name, gcPercent(), debug.SetMemoryLimit(-1), workPercent(liveHeap()))
	}
}

// A heap at rest is not collected because time has passed: Go does that only where
// there is a percentage. The first collection, which comes when the heap has grown,
// brings the percentage of work and no limit: it would collect all the time where more
// is in use.
func TestHeapRests(t *testing.T) {
	restore(t)
	collections := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	for name, live := range map[string]int{"small": 0, "large": 64 << 20} {
		kept := make([]byte, live)
		var p pace
		p.settle()
		at := collections()
		if got := gcPercent(); got != math.MaxUint64 {
			t.Fatalf("%s: %d %% at rest", name, got)
		}
		// Go keeps 1 MiB of the limit for itself, and begins before it is reached.
		for range 8 {
			garbage = make([]byte, restGrowth/64)
		}
		if n := collections() - at; n != 0 {
			t.Errorf("%s: %d collections at rest", name, n)
		}
		for range 2 * max(restGrowth, live) / (1 << 20) {
			garbage = make([]byte, 1<<20)
		}
		works(t, name)
		if got := gcPercent(); live > 0 && got > 100 {
			t.Errorf("%s: a heap of %d bytes grows by %d %%", name, live, got)
		}
		runtime.KeepAlive(kept)
		p.begin()
	}
}

// What has put off collections until the heap settles does not end its rest, nor does the end
// of a collection of an earlier period.
func TestHeapSettles(t *testing.T) {
	restore(t)
	var p pace
	p.boot()
	past := p.period
	p.settle()
	p.work(past)
	p.collected(past, time.Time{})
	time.Sleep(10 * time.Millisecond) // what was to be done after the collection has been done
	if got := gcPercent(); got != math.MaxUint64 {
		t.Errorf("%d %% at rest", got)
	}
	debug.FreeOSMemory()
	works(t, "settled")
	p.begin()
}

// A heap that has worked rests again when two collections are far from each other, and not
// while they are close. What it held then is the host's again.
func TestHeapRestsAgain(t *testing.T) {
	restore(t)
	var p pace
	p.settle()
	debug.FreeOSMemory()
	works(t, "first")
	p.collected(p.period, time.Now())
	works(t, "soon after")
	for range 8 {
		garbage = make([]byte, 1<<20)
	}
	at := p.period
	p.collected(at, time.Now().Add(-2*stillness))
	for deadline := time.Now().Add(time.Minute); gcPercent() != math.MaxUint64 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got := gcPercent(); got != math.MaxUint64 {
		t.Errorf("%d %% after it was still", got)
	}
	s := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s)
	if free := s[0].Value.Uint64(); free > 4<<20 {
		t.Errorf("%d bytes of the heap are free and not the host's", free)
	}
	p.begin()
}

// A large heap does not grow fivefold.
func TestWorkPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: workGCPercent, 1 << 20: workGCPercent, 3 << 20: workGCPercent, 6 << 20: 200, 12 << 20: 100, 16 << 20: leastGCPercent, 1 << 40: leastGCPercent} {
		if got := workPercent(live); got != want {
			t.Errorf("%d bytes: %d %%, expected %d %%", live, got, want)
		}
	}
}

var garbage []byte
