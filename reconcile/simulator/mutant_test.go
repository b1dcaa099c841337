// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"testing"
)

// mutants are mistakes that were made, or could be: in the launcher, the store,
// the observer, the source. Each must be found, or the simulator proves nothing.
var mutants = []string{
	// What the order of steps guards against.
	"no-intent", "gate-before-record", "gate-without-eof", "stop-without-intent", "stopped-before-kill", "death-not-proven",
	"gofer-not-killed", "removed-before-kill", "cgroup-on-record-only",
	// What the sentry is asked when a start goes on.
	"resumed-unasked", "resumed-twice",
	// Files.
	"write-in-place", "no-file-fsync", "no-dir-fsync", "no-fsync-of-claim", "no-fsync-of-state", "temps-not-swept", "drop-unsynced", "requests-unlocked",
	// Identity.
	"liveness-by-pid", "liveness-by-start-time", "unknown-is-dead", "exit-of-any-attempt",
	// What is not known.
	"error-is-absence", "corrupt-is-absence", "incomplete-is-complete", "absence-seen-once", "nameless-is-nobody",
	// Counting.
	"crash-counts",
	// How long it may run.
	"started-earlier",
	// Images.
	"image-by-reference", "image-not-on-record", "pull-not-cancelled",
	// New files for what runs.
	"refresh-without-intent", "refreshed-before-signal",
}

// maxMutantSteps is within how many steps a mistake must be found.
const maxMutantSteps = 3000000

// slow are the mutants that take long to find; with the race detector, which
// would look for nothing new in them, they are left out.
var slow = map[string]bool{
	"no-intent": true, "error-is-absence": true, "drop-unsynced": true, "requests-unlocked": true, "nameless-is-nobody": true, "no-fsync-of-state": true, "death-not-proven": true, "cgroup-on-record-only": true,
	"exit-of-any-attempt": true, "stopped-before-kill": true, "removed-before-kill": true, "liveness-by-start-time": true, "gofer-not-killed": true,
	"image-by-reference": true, "image-not-on-record": true,
}

func TestMutants(t *testing.T) {
	for _, m := range mutants {
		if raceDetector && slow[m] {
			continue
		}
		t.Run(m, func(t *testing.T) {
			t.Parallel()
			steps := 0
			for seed := uint64(1); steps < maxMutantSteps; seed++ {
				events := script(seed, perRun)
				switch m {
				case "no-fsync-of-state":
					// Later the directory is forced to disk for other reasons.
					events = firstBoot(seed)
				case "drop-unsynced":
					events = asksOnce(seed)
				case "requests-unlocked":
					events = asks(seed)
				}
				r := inBubble(t, seed, events, m, false)
				steps += r.stats.Steps
				if r.err != nil {
					t.Logf("found after %d steps (%d runs): %v", steps, seed, r.err)
					return
				}
			}
			t.Errorf("not found in %d steps", steps)
		})
	}
}

// What finds a mistake finds none where there is none.
func TestDirected(t *testing.T) {
	t.Parallel()
	seeds := uint64(100)
	if raceDetector {
		seeds = 5
	}
	for name, events := range map[string]func(uint64) []event{"first boot": firstBoot, "asks": asks, "asks once": asksOnce} {
		for seed := range seeds {
			if r := inBubble(t, seed, events(seed), "", false); r.err != nil {
				t.Errorf("%s, seed %d: %v", name, seed, r.err)
			}
		}
	}
}
