// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"maps"
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/cni"
)

// checkCNI looks at the networks of CNI that the host policy names and that sandboxes are on:
// their configuration, and all plugins. A policy that can't be read is another check's.
func (d doctor) checkCNI(sandboxes []actual.Observed) []finding {
	const check = "cni"
	policy, err := d.HostPolicy()
	if err != nil {
		return nil
	}
	names := map[string]bool{}
	for _, name := range policy.Network.CNI.Networks {
		if name != hostpolicy.AnyCNI {
			names[name] = true
		}
	}
	var out []finding
	for i := range sandboxes {
		rec := sandboxes[i].Record
		if rec.CNI == nil {
			continue
		}
		for _, c := range cni.Of(rec) {
			names[c.Network] = true
		}
		for _, w := range rec.Warnings {
			if w.Reason == actual.WarningStopFailed && rec.Phase == actual.PhaseStopping {
				out = append(out, finding{check, levelWarning, fmt.Sprintf("the network of %s is not given back yet: %s", rec.Name, w.Message)})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := finding{check, levelOK, fmt.Sprintf("network %s: its configuration and its plugins are there", name)}
		if err := cni.Look(&policy.Network.CNI, name); err != nil {
			f = finding{check, levelWarning, fmt.Sprintf("no sandbox can be started on network %s: %v", name, err)}
		}
		out = append(out, f)
	}
	return out
}
