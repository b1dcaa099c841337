// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"time"

	"sandboxctl.dev/desired"
)

// result is what came of a run.
type result struct {
	err   error
	stats stats
	trace []string
}

// simulate runs a script on a new host, lets it settle and checks it. It is in a
// bubble of its own time. The same seed and events give the same run.
func simulate(seed uint64, events []event, mutant string, trace bool) *result {
	h := newHost(seed, mutant)
	h.tracing = trace
	h.stats.Episodes = 1
	h.play(events)
	if h.failure == nil {
		h.rest()
	}
	err := h.failure
	h.end()
	return &result{err: err, stats: h.stats, trace: h.trace}
}

// sleep lets time pass, and the loop and the source see it.
func (h *host) sleep(d time.Duration) {
	if left := time.Until(h.wakeAt); !h.wakeAt.IsZero() && left < d {
		d = max(left, 0)
	}
	for _, t := range h.parked {
		if left := time.Until(t.deadline); !t.deadline.IsZero() && left > 0 {
			d = min(d, left)
		}
	}
	for _, p := range h.procs {
		if left := time.Until(p.stuck); left > 0 {
			d = min(d, left)
		}
	}
	h.fence()
	time.Sleep(d)
	h.settle()
	if !h.wakeAt.IsZero() && !time.Now().Before(h.wakeAt) {
		h.wakeAt = time.Time{}
		h.notify()
	}
}

// advance makes one step: something that has waited goes on. It is false if
// everything waits for time to pass.
func (h *host) advance() bool {
	h.settle()
	if h.woken && h.daemon != nil && !h.daemon.dead {
		h.woken = false
		h.daemon.wake()
		h.settle()
	}
	h.collectCommands()
	for _, t := range h.runnable() {
		if t.p.dead {
			h.resume(t)
			return true
		}
	}
	if h.daemon == nil || h.ended(h.daemon) {
		if h.daemon != nil {
			h.exit(h.daemon)
		}
		if h.downFor--; h.downFor < 0 {
			h.startDaemon()
			h.downFor = h.rng.IntN(20)
		}
		h.settle()
	}
	if h.fullFor--; h.fullFor < 0 {
		h.disk.full = false
	}
	tasks, steps := h.runnable(), h.hostSteps()
	if len(h.later) > 0 && h.rng.IntN(4) == 0 {
		f := h.later[0]
		h.later = h.later[1:]
		f()
		return true
	}
	n := len(tasks) + len(steps)
	if n == 0 {
		return len(h.later) > 0 || h.ended(h.daemon)
	}
	if i := h.rng.IntN(n); i < len(tasks) {
		h.resume(tasks[i])
		h.settle()
	} else {
		h.stats.Steps++
		steps[i-len(tasks)]()
	}
	h.check.step(h)
	return true
}

func (h *host) ended(p *program) bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// play lets the events happen.
func (h *host) play(events []event) {
	for _, e := range events {
		for n := 0; n < e.After && h.failure == nil; n++ {
			if !h.advance() {
				h.sleep(idle[h.rng.IntN(len(idle))])
				n += 5
			}
		}
		if h.failure != nil {
			return
		}
		h.settle()
		h.fire(e)
		h.settle()
		h.check.step(h)
	}
}

var idle = []time.Duration{20 * time.Millisecond, 150 * time.Millisecond, time.Second, 4 * time.Second, 31 * time.Second}

// Bounds of how a host settles.
const (
	settleTime   = 4 * time.Minute
	settlePasses = 400
	quietTime    = 5 * time.Minute
)

// rest ends the faults, and checks that the host settles and then stays as it is.
func (h *host) rest() {
	h.note("-- rest")
	h.cut, h.fullFor, h.disk.full, h.lazyInit, h.check.doomNext, h.images.calm = noCut, 0, false, false, 0, true
	clear(h.failing)
	h.endStrangers()
	for _, p := range h.procs {
		p.hung, p.stuck = false, time.Time{}
	}
	h.mounted = h.manifests
	for (len(h.later) > 0 || len(h.clis) > 0) && h.failure == nil {
		h.advance()
	}
	for _, name := range manifestNames {
		for n := 0; h.backups[name] != nil && n < 1000; n++ {
			h.mend(name)
			h.advance()
		}
		// Whatever can't be read is mended too.
		if f := h.manifests.names[name+".yaml"]; f != nil && decodeManifest(name+".yaml", f.data).problems != nil {
			delete(h.check.acks, name)
			f.overwrite([]byte(manifest(name, 0)))
		}
	}
	// A daemon that ends leaves everything as it is; the next cleans up.
	for (h.daemon == nil || !h.between()) && h.failure == nil {
		h.advance()
	}
	h.daemon.cancel()
	began, passes := time.Now(), h.check.passes
	for time.Since(began) < settleTime && h.failure == nil {
		if h.advance() {
			continue
		}
		if h.check.guard != nil {
			h.approve()
		}
		if h.check.reason == desired.ReasonDirectoryReplaced {
			// The daemon's memory of it was lost, and it is empty: it waits for a
			// manifest.
			if f, err := h.disk.create(h.manifests, "s0.yaml", false, true); err == nil {
				f.overwrite([]byte(manifest("s0", 0)))
				delete(h.check.acks, "s0")
				h.notify()
			}
		}
		h.sleep(2 * time.Second)
		if h.check.passes-passes > settlePasses {
			h.breach("I5: %d passes and not settled", h.check.passes-passes)
		}
	}
	if h.failure != nil {
		return
	}
	h.check.settled(h)
	h.note("-- quiet")
	writes, passes := h.writes, h.check.passes
	for began = time.Now(); time.Since(began) < quietTime && h.failure == nil; {
		if !h.advance() {
			h.sleep(10 * time.Second)
		}
	}
	if h.writes != writes && h.failure == nil {
		h.breach("I7: %d changes of a host on which nothing happens", h.writes-writes)
	}
	if n := h.check.passes - passes; n > int(quietTime/(30*time.Second))+1 && h.failure == nil {
		h.breach("I7: %d passes in %s of a host on which nothing happens", n, quietTime)
	}
}

// end ends every program, so that nothing is left in the bubble.
func (h *host) end() {
	h.settle()
	if h.daemon != nil {
		h.crash(h.daemon)
	}
	for _, p := range h.clis {
		h.crash(p)
	}
	for {
		h.settle()
		if len(h.parked) == 0 {
			break
		}
		h.resume(h.parked[0])
	}
	if h.daemon != nil {
		<-h.daemon.done
	}
}
