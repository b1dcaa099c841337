// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"

	"sandboxctl.dev/actual"
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
	if n == 0 && policy.Waiting() == 0 && policy.WarmSentries() == 0 {
		return []finding{{check, levelOK, "none, as the host policy has it (`warm`)"}}
	}
	how := fmt.Sprintf("`warm: %d`", policy.Waiting())
	if policy.WarmSentries() > 0 {
		how += fmt.Sprintf(" and `warmKernels: %d`", policy.WarmSentries())
	}
	return []finding{{check, levelOK, fmt.Sprintf("%d for sandboxes that start next; %s of the host policy is how many a daemon keeps", n, how)}}
}
