// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"net/netip"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/links"
)

// networks checks that no two sandboxes have an address, and that links are gone with their
// sandboxes. Whether a link is missing can't be told: the daemon may have another network
// namespace than this program.
func (v *view) networks() error {
	owner, stopped := map[netip.Addr]string{}, map[string]string{}
	for _, r := range v.list.Records {
		for i := range r.Attachments {
			a := &r.Attachments[i]
			for _, ip := range []netip.Addr{a.Address4, a.Address6} {
				if !ip.IsValid() {
					continue
				}
				if other := owner[ip]; other != "" {
					v.add(DuplicateAddress, "%s is the address of %s and of %s", ip, other, r.Name)
				}
				owner[ip] = r.Name
			}
			if r.Phase == actual.PhaseStopped {
				stopped[a.Link] = r.Name
			}
		}
	}
	if len(owner) == 0 {
		return nil
	}
	host, err := links.Look()
	if err != nil {
		return err
	}
	for i := range host.Links {
		if name := stopped[host.Links[i].Name]; name != "" {
			v.add(LeftoverLink, "link %s of %s, which is stopped", host.Links[i].Name, name)
		}
	}
	return nil
}
