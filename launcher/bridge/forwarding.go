// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/launcher/links"
)

// ForwardingFile says which settings of the host were changed for networks: nobody changes
// them back, since others may rely on them by then.
const ForwardingFile = "forwarding.json"

// maxForwarding bounds it: hosts with many interfaces have many settings.
const maxForwarding = 1 << 20

// forwarding is what it has.
type forwarding struct {
	Version int              `json:"version"`
	Changes []forwardingStep `json:"changes"`
}

type forwardingStep struct {
	At time.Time `json:"at"`
	links.Change
}

// forwarding has the host forward what a sandbox sends and is sent.
func (k *Keeper) forwarding(rec *actual.Record) error {
	has := func(six bool) bool {
		return slices.ContainsFunc(rec.Attachments, func(a actual.Attachment) bool {
			return six && a.Address6.IsValid() || !six && a.Address4.IsValid()
		})
	}
	k.forward.Lock()
	defer k.forward.Unlock()
	changes, err := links.Forwarding(has(false), has(true))
	if err != nil || len(changes) == 0 {
		return err
	}
	said, err := k.readForwarding()
	if err != nil {
		return err
	}
	for _, c := range changes {
		said.Changes = append(slices.DeleteFunc(said.Changes, func(s forwardingStep) bool { return s.Path == c.Path }), forwardingStep{time.Now(), c})
	}
	b, err := json.MarshalIndent(said, "", "  ")
	if err != nil {
		return fmt.Errorf("encode changes of the host's settings: %w", err)
	}
	// Before they are made: who wants to undo them must find them.
	err = crashpoint.Do(crashpoint.ForwardingPut, func() error { return atomicfile.Write(k.store.RootDir(), ForwardingFile, append(b, '\n'), 0o600) })
	if err != nil {
		return fmt.Errorf("record changes of the host's settings: %w", err)
	}
	if err := links.Apply(changes); err != nil {
		return fmt.Errorf("have the host forward packets: %w", err)
	}
	for _, c := range changes {
		k.log.Info("setting of the host changed for networks", "file", c.Path, "from", c.Before, "to", c.Now)
	}
	return nil
}

func (k *Keeper) readForwarding() (*forwarding, error) {
	said := &forwarding{Version: version}
	if err := read(k.store.RootDir(), ForwardingFile, maxForwarding, said); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s/%s: %w", k.store.Path(), ForwardingFile, err)
	}
	return said, nil
}
