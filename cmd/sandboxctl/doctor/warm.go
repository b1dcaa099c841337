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
	n := warm.Count(ids, store.Marker()) / 2 // a sentry and a gofer each
	free, err := hostmem.Available()
	if err != nil {
		return []finding{{check, levelWarning, fmt.Sprintf("%v; none waits then", err)}}
	}
	return []finding{{check, levelOK, warmText(n, policy.Waiting(), policy.WarmSentries(), free)}}
}

// warmText says how many pairs wait, and how many are to, without and with a warm sentry, on a
// host with so much free memory.
func warmText(n, pairs, kernels int, free uint64) string {
	if n == 0 && pairs == 0 && kernels == 0 {
		return "none, as the host policy has it (`warm`)"
	}
	how := fmt.Sprintf("`warm: %d`", pairs)
	if kernels > 0 {
		how += fmt.Sprintf(" and `warmKernels: %d`", kernels)
	}
	text := fmt.Sprintf("%d for sandboxes that start next; %s of the host policy is how many a daemon keeps", n, how)
	if most, _ := warm.Room(free); most < pairs+kernels {
		text += fmt.Sprintf("; the %d MiB of memory that the host has free are enough for %d", free>>20, most)
	}
	return text
}
