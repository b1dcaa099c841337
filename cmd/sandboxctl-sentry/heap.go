// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"runtime/debug"
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
)

// deferGC puts off the garbage collection until settleHeap: nearly everything that a
// boot allocates stays, and collecting it several times took a fifth of a start. A
// boot that allocates much, as the restore of a large checkpoint does, is collected
// as ever from its first 32 MiB on.
func deferGC() {
	debug.SetGCPercent(bootGCPercent)
	// Its cleanup is called by the first collection.
	first := new([1]*byte)
	runtime.AddCleanup(first, func(percent int) { debug.SetGCPercent(percent) }, idleGCPercent)
}

// settleHeap collects what the boot has left and gives its memory back to the host,
// a while after this call.
func settleHeap() { time.AfterFunc(settleDelay, debug.FreeOSMemory) }
