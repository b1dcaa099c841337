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

// The first collection sets the usual percentage, also if it was asked for: a heap
// that has grown to nine times its size would stay that large.
func TestDeferGC(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	for name, collect := range map[string]func(){
		"settled": debug.FreeOSMemory,
		"much": func() {
			for range 64 {
				garbage = make([]byte, 1<<20)
			}
		},
	} {
		deferGC()
		if got := gcPercent(); got != bootGCPercent {
			t.Fatalf("%s: %d %% while it boots", name, got)
		}
		collect()
		usual(t, name)
	}
}

// usual waits until collections are as usual.
func usual(t *testing.T, name string) {
	t.Helper()
	ok := func() bool { return gcPercent() == idleGCPercent && debug.SetMemoryLimit(-1) == math.MaxInt64 }
	for deadline := time.Now().Add(time.Minute); !ok() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if !ok() {
		t.Errorf("%s: after a collection %d %%, at most %d bytes", name, gcPercent(), debug.SetMemoryLimit(-1))
	}
}

// A heap at rest is not collected because time has passed: Go does that only where
// there is a percentage. The first collection, which comes when the heap has grown,
// brings the usual percentage and no limit: it would collect all the time where more
// is in use.
func TestRestHeap(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	collections := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	for name, live := range map[string]int{"small": 0, "large": 64 << 20} {
		kept := make([]byte, live)
		debug.FreeOSMemory()
		restHeap()
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
		usual(t, name)
		runtime.KeepAlive(kept)
	}
}

// What has put off collections until the heap settles does not end its rest.
func TestSettledHeapRests(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before); resting.Store(false) })
	deferGC()
	settle()
	ended := make(chan struct{})
	if got := gcPercent(); got != math.MaxUint64 {
		t.Errorf("%d %% at rest", got)
	}
	afterGC(func() { close(ended) })
	debug.FreeOSMemory()
	<-ended
	usual(t, "settled")
}

var garbage []byte
