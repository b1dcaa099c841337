// SPDX-License-Identifier: Apache-2.0

package warm

import (
	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/setup"
)

// Facts are what decides which way a start gets its processes.
type Facts struct {
	// Setup is what is to be started.
	Setup *setup.Setup
	// Wanted is how many pairs the host policy has wait, and Waiting how many do that this
	// start can have.
	Wanted, Waiting int
	// Lack says why none waits, "" if that is not known.
	Lack string
}

// Choice is the way that a start gets its processes.
type Choice struct {
	// Way is one of Start.Way of a record.
	Way string
	// Why is what speaks against a better one.
	Why string
}

// Choose decides that, and nobody else does. It looks at nothing but the facts. A way that is
// added has its case before those that take longer.
func Choose(f *Facts) Choice {
	if f.Wanted == 0 {
		return Choice{actual.WayCold, "the host policy has no processes wait"}
	}
	if why := pair.Unfit(f.Setup); why != "" {
		return Choice{actual.WayCold, why}
	}
	if f.Waiting == 0 {
		if f.Lack != "" {
			return Choice{actual.WayCold, f.Lack}
		}
		return Choice{actual.WayCold, "no processes were waiting at that moment"}
	}
	return Choice{Way: actual.WayWaiting}
}
