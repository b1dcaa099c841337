// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/launcher/links"
)

// giveBack removes the files of networks that have neither a document nor a sandbox: their
// subnets are free then. Nobody has an address in one of them by the file alone. Addresses
// are on record from before they are used until their processes are proven dead, and who
// chooses some meanwhile waits for the lock. Later says that this is to be done again.
func (k *Keeper) giveBack() (later bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.whole {
		return false, nil // a document that can't be read may be about any of them
	}
	dir, err := k.open()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	files, err := dir.Readdirnames(-1)
	if err != nil {
		return false, fmt.Errorf("list chosen subnets: %w", err)
	}
	var unused []string
	for _, f := range files {
		if name, is := cutSuffix(f); is && k.documents[name] == nil {
			unused = append(unused, name)
		}
	}
	if len(unused) == 0 {
		return false, nil
	}
	used, known, err := k.attachedTo()
	if err != nil || !known {
		return false, err
	}
	unused = slices.DeleteFunc(unused, func(name string) bool { return used[name] })
	if len(unused) == 0 {
		return false, nil
	}
	host, err := links.Look()
	if err != nil {
		return false, err
	}
	for _, name := range unused {
		s, err := readSubnets(dir, name)
		if err != nil {
			continue // doctor and the next start of the name tell
		}
		if hasLink(host, s) {
			later = true // of a sandbox whose record was lost, or that ends now
			continue
		}
		if err := fsys.Of(dir).Unlink(name + ".json"); err != nil {
			return later, fmt.Errorf("remove subnets of network %s: %w", name, err)
		}
		delete(k.scopes, name)
		k.log.Info("subnets of a network are free: it has no document and no sandbox", "network", name, "subnet", s.Subnet4, "subnet6", s.Subnet6)
	}
	return later, fsys.Of(dir).Sync()
}

// attachedTo are the networks that sandboxes are on, or have an address of for their next
// start. That is not known while a record can't be read.
func (k *Keeper) attachedTo() (used map[string]bool, known bool, err error) {
	list, err := k.store.List()
	if err != nil {
		return nil, false, fmt.Errorf("find sandboxes on networks: %w", err)
	}
	records := list.Records
	used = map[string]bool{}
	for i := range list.Quarantined {
		r, err := k.store.Copy(list.Quarantined[i].Name)
		if err != nil || r == nil {
			return nil, false, nil // it may be on any of them until it is repaired
		}
		records = append(records, r)
	}
	for _, r := range records {
		for i := range r.Attachments {
			used[r.Attachments[i].Network] = true
		}
	}
	for _, promised := range k.promised {
		for i := range promised {
			used[promised[i].Network] = true
		}
	}
	return used, true, nil
}

// hasLink says whether a link of a sandbox leads to an address of the subnets.
func hasLink(host *links.Host, s *subnets) bool {
	return slices.ContainsFunc(host.Links, func(l links.Link) bool {
		return slices.ContainsFunc(l.Addresses, func(a netip.Addr) bool { return s.Subnet4.Contains(a) || s.Subnet6.Contains(a) })
	})
}
