// SPDX-License-Identifier: Apache-2.0

package world

import (
	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/warm"
)

// ReadyPlaces is how many places each SandboxPool has ready, by the name of the pool. Without a
// daemon, or if that can't be told, none has any.
func (h *Host) ReadyPlaces() map[string]int {
	store, err := actual.OpenStoreReadOnly(h.State)
	if err != nil {
		return nil
	}
	defer store.Close()
	ready, err := warm.Ready(store.RootDir(), store.Marker())
	if err != nil {
		return nil // doctor tells
	}
	return ready
}
