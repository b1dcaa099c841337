// SPDX-License-Identifier: Apache-2.0

package world

import (
	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/ondisk"
	"sandboxctl.dev/reconcile/fits"
)

// LookAtDisk looks at what sandboxes have written to the disk of a state directory and may
// still write. It is nil where that can't be told: then a start itself finds out.
func LookAtDisk(store *actual.Store) *fits.Room {
	if store == nil {
		return nil
	}
	r := &fits.Room{Places: map[string]fits.Place{}}
	disk, err := ondisk.Look(store, func(name string, written, left int64) {
		r.Places[name] = fits.Place{Written: written, Left: left}
	})
	if err != nil {
		return nil
	}
	r.Disk = disk
	return r
}
