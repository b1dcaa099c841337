// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/idmap"
)

// owner is a user and a group, as the host numbers them.
type owner struct{ uid, gid int }

// as calls fn with files that it makes being the owner's. It is for a thread of its own.
func (o owner) as(fn func() error) (err error) {
	if o == (owner{}) {
		return fn()
	}
	// The group first: the user takes the right to choose one along.
	for _, id := range []struct {
		set func(int) (int, error)
		to  int
	}{{unix.SetfsgidRetGid, o.gid}, {unix.SetfsuidRetUid, o.uid}} {
		if _, err := id.set(id.to); err != nil {
			return err
		}
	}
	defer func() {
		_, uerr := unix.SetfsuidRetUid(0)
		_, gerr := unix.SetfsgidRetGid(0)
		if err == nil && (uerr != nil || gerr != nil) {
			err = fmt.Errorf("become root again: %w", errors.Join(uerr, gerr))
		}
	}()
	return fn()
}

// ownerOf is whom the files of a volume belong to, nil for root of the sandbox.
func ownerOf(maps *idmap.Maps, o *desired.Ownership) *owner {
	if o == nil {
		return nil
	}
	var ids idmap.Maps
	if maps != nil {
		ids = *maps
	}
	onHost := func(of []specs.LinuxIDMapping, id *uint32) int {
		if id == nil {
			id = new(uint32)
		}
		host, _ := idmap.OnHost(of, *id) // it is somebody: the start has refused others
		return int(host)
	}
	return &owner{onHost(ids.UIDs, o.UID), onHost(ids.GIDs, o.GID)}
}
