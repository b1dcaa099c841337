// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

const (
	// idleGCPercent is below Go's 100: the heaps of idle sandboxes are most of what a
	// host full of them holds.
	idleGCPercent = 75
	// bootGCPercent has the first collection happen at 32 MiB: Go's least heap of
	// 4 MiB grows with it. A boot stays within 12 MiB.
	bootGCPercent = 800
	// settleDelay passes between the application's start and the collection of what
	// the boot has left. The application's first work comes first.
	settleDelay = 2 * time.Second
	// restGrowth is how much at least a heap at rest grows before it is collected.
	restGrowth = 2 << 20
)

// resting says that the collection of settleHeap has begun.
var resting atomic.Bool

// deferGC puts off the garbage collection until settleHeap: nearly everything that a
// boot allocates stays, and collecting it several times took a fifth of a start. A
// boot that allocates much, as the restore of a large checkpoint does, is collected
// as ever from its first 32 MiB on.
func deferGC() {
	debug.SetGCPercent(bootGCPercent)
	afterGC(func() {
		if !resting.Load() {
			debug.SetGCPercent(idleGCPercent)
		}
	})
}

// stirHeap is deferGC for a heap that may be at rest.
func stirHeap() {
	resting.Store(false)
	debug.SetMemoryLimit(math.MaxInt64)
	deferGC()
}

// settleHeap collects what the boot has left and gives its memory back to the host,
// a while after this call. Then the heap is at rest.
func settleHeap() { time.AfterFunc(settleDelay, settle) }

func settle() {
	resting.Store(true)
	debug.FreeOSMemory()
	restHeap()
}

// restHeap puts off the next collection until the heap has grown by what collections
// at idleGCPercent would let it grow by. Go collects every heap once in two minutes
// otherwise: the second collection of a sandbox that does nothing took 0.5 MiB for
// Go's own lists, and each took 2 ms of processor time.
func restHeap() {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	used, live := s[0].Value.Uint64()-s[1].Value.Uint64(), s[2].Value.Uint64()
	// Only without a percentage does Go leave out the collections that time asks for.
	debug.SetMemoryLimit(int64(used + max(restGrowth, live*idleGCPercent/100)))
	debug.SetGCPercent(-1)
	// Not before: a collection between the two would bring back the usual settings first,
	// and the heap would have these for good, with no limit or with one that it outgrows.
	afterGC(func() {
		debug.SetGCPercent(idleGCPercent)
		debug.SetMemoryLimit(math.MaxInt64)
	})
}

// afterGC calls fn once the next collection is over.
func afterGC(fn func()) {
	runtime.AddCleanup(new([1]*byte), func(fn func()) { fn() }, fn)
}
