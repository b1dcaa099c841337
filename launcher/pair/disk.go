// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/launcher/proc"
)

// giveDisk gives the sentry a file for each thing that it writes to the disk of the state
// directory. None has a name: it is gone with the sentry, also by kill -9.
func giveDisk(la *Launch, d *proc.Donation) ([]actual.OnDisk, error) {
	out := la.Setup.OnDisk()
	for i := range out {
		f, err := atomicfile.Unnamed(la.Dir, 0o600)
		if err != nil {
			return nil, fmt.Errorf("make a file for what is written to the disk: %w", err)
		}
		out[i].FD = d.Give(f)
	}
	return out, nil
}
