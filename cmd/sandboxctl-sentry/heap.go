// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// leastGCPercent is below Go's 100: what a large heap grows by is memory of the host.
	leastGCPercent = 75
	// workGCPercent is that of a small heap while the sandbox works. Each request to a
	// gofer and each packet leaves garbage: with leastGCPercent a heap of 3 MiB was
	// collected so often that a server took 4 % more processor time.
	workGCPercent = 400
	// workGarbage is how much garbage a heap may have before workGCPercent is lowered.
	workGarbage = 12 << 20
	// bootGCPercent has the first collection happen at 32 MiB: Go's least heap of
	// 4 MiB grows with it. A boot stays within 12 MiB.
	bootGCPercent = 800
	// settleDelay passes between the application's start and the collection of what
	// the boot has left. The application's first work comes first.
	settleDelay = 2 * time.Second
	// restGrowth is how much at least a heap at rest grows before it is collected.
	restGrowth = 2 << 20
	// stillness between two collections says that the sandbox does nothing much. Go
	// collects a heap two minutes after the last time at the latest.
	stillness = time.Minute
)

// heap is how the heap of this process is collected.
var heap pace

// pace adapts the collections of the heap to what the sandbox does: few while it boots,
// rarely while it works, and none while it rests, which is when its garbage goes back to
// the host.
type pace struct {
	mu sync.Mutex
	// period counts the periods: what the end of a collection was to do in an earlier one
	// is not done any more.
	period  int
	percent int // in force while it works, 0 of other periods
}

// begin begins a period.
func (p *pace) begin() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.period++
	p.percent = 0
	return p.period
}

// within calls fn if the period is not over, under the lock.
func (p *pace) within(period int, fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.period == period {
		fn()
	}
}

// boot puts off the garbage collection until settle: nearly everything that a
// boot allocates stays, and collecting it several times took a fifth of a start. A
// boot that allocates much, as the restore of a large checkpoint does, is collected
// as ever from its first 32 MiB on. The heap may be at rest: of a sentry that waited.
func (p *pace) boot() {
	period := p.begin()
	debug.SetGCPercent(bootGCPercent)
	debug.SetMemoryLimit(math.MaxInt64)
	afterGC(func() { p.work(period) })
}

// settleSoon calls settle a while after this call, unless another period has begun: a sentry
// that waited may have been taken meanwhile.
func (p *pace) settleSoon() {
	p.mu.Lock()
	period := p.period
	p.mu.Unlock()
	time.AfterFunc(settleDelay, func() { p.within(period, func() { go p.settle() }) })
}

// settle collects what was left and gives its memory back to the host. Then the heap is at
// rest.
func (p *pace) settle() {
	period := p.begin()
	debug.FreeOSMemory()
	p.rest(period)
}

// work sets how the heap is collected while the sandbox works, after each collection anew.
func (p *pace) work(period int) {
	p.within(period, func() {
		// Each change stops all threads for a moment.
		if want := workPercent(liveHeap()); p.percent == 0 || want < p.percent*3/4 || want > p.percent*4/3 {
			debug.SetGCPercent(want)
			debug.SetMemoryLimit(math.MaxInt64)
			p.percent = want
		}
		at := time.Now()
		afterGC(func() { p.collected(period, at) })
	})
}

// collected goes on with the period of work after a collection, or ends it if the one before
// was long ago.
func (p *pace) collected(period int, last time.Time) {
	if time.Since(last) < stillness {
		p.work(period)
		return
	}
	p.within(period, func() { go p.settle() })
}

// workPercent is the percentage for a live heap of a size in bytes.
func workPercent(live uint64) int {
	return int(min(max(workGarbage*100/max(live, 1), leastGCPercent), workGCPercent))
}

// rest puts off the next collection until the heap has grown by what collections
// at leastGCPercent would let it grow by. Go collects every heap once in two minutes
// otherwise: the second collection of a sandbox that does nothing took 0.5 MiB for
// Go's own lists, and each took 2 ms of processor time.
func (p *pace) rest(period int) {
	p.within(period, func() {
		s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		metrics.Read(s)
		used := s[0].Value.Uint64() - s[1].Value.Uint64()
		// Only without a percentage does Go leave out the collections that time asks for.
		debug.SetMemoryLimit(int64(used + max(restGrowth, liveHeap()*leastGCPercent/100)))
		debug.SetGCPercent(-1)
		// Not before: a collection between the two would bring back the usual settings first,
		// and the heap would have these for good, with no limit or with one that it outgrows.
		afterGC(func() { p.work(period) })
	})
}

// liveHeap is how many bytes of the heap were in use at the last collection.
func liveHeap() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// afterGC calls fn once the next collection is over.
func afterGC(fn func()) {
	runtime.AddCleanup(new([1]*byte), func(fn func()) { fn() }, fn)
}
