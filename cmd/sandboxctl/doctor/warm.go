// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/hostmem"
	"sandboxctl.dev/launcher/warm"
)

// checkWarm counts the processes that wait for a sandbox. That each is on record and has a
// daemon is a matter of the invariants.
func (d doctor) checkWarm(store *actual.Store) []finding {
	const check = "waiting processes"
	ids, err := warm.Read(store.RootDir())
	if err != nil {
		return []finding{{check, levelWarning, fmt.Sprintf("%v; it is written again by the next daemon", err)}}
	}
	policy, err := d.HostPolicy()
	if err != nil {
		return nil // told elsewhere
	}
	ready, err := warm.Ready(store.RootDir(), store.Marker())
	if err != nil {
		return nil // it was read just now
	}
	w := waits{pairs: policy.Waiting(), kernels: policy.WarmSentries(), noKernels: warm.NoKernels(policy)}
	for _, n := range ready {
		w.places += n
	}
	w.now = max(0, warm.Count(ids, store.Marker())/2-w.places) // a sentry and a gofer each
	free, err := hostmem.Available()
	if err != nil {
		return []finding{{check, levelWarning, fmt.Sprintf("%v; none waits then", err)}}
	}
	return []finding{{check, levelOK, warmText(w, free)}}
}

// waits is how many pairs wait.
type waits struct {
	now, places    int // for any sandbox, and as places of pools
	pairs, kernels int // how many the host policy asks for, without and with a warm sentry
	noKernels      string
}

// warmText says how many wait, and why there are fewer than the host policy asks for, on a host with
// so much free memory.
func warmText(w waits, free uint64) string {
	if w == (waits{}) {
		return "none, as the host policy has it (`warm`)"
	}
	how := fmt.Sprintf("`warm: %d`", w.pairs)
	if w.kernels > 0 {
		how += fmt.Sprintf(" and `warmKernels: %d`", w.kernels)
	}
	text := fmt.Sprintf("%d for sandboxes that start next; %s of the host policy is how many a daemon keeps", w.now, how)
	if w.places > 0 {
		text += fmt.Sprintf("; %d more as places of pools", w.places)
	}
	wanted := w.pairs + w.places
	if w.noKernels != "" {
		text += fmt.Sprintf("; no kernel is booted ahead, as no sandbox could take one: %s", w.noKernels)
	} else {
		wanted += w.kernels
	}
	if most, _ := warm.Room(free); most < wanted {
		text += fmt.Sprintf("; the %d MiB of memory that the host has free are enough for %d", free>>20, most)
	}
	return text
}
