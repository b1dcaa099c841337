// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/addresses"
	"sandboxctl.dev/launcher/links"
)

// Wanted is what is to become of the network of a sandbox.
type Wanted struct {
	// Network is its spec.network.
	Network *networks.Network
	// Declared returns what a Network document says, nil if there is none.
	Declared func(name string) *networks.Declared
	Pools    Pools
}

// Pools are what subnets of networks are chosen from that have none of their own, by the
// host policy.
type Pools struct{ V4, V6 []netip.Prefix }

// Choose gives a record its attachments: the addresses that it had, if it can have them
// again, or others. What is chosen is kept for it until done is called, after which the
// record must say it. Done is never nil. A nil keeper has no networks.
func (k *Keeper) Choose(rec *actual.Record, w *Wanted) (done func(), err error) {
	if w.Network.Mode != networks.Bridge {
		rec.Attachments = nil
		return func() {}, nil
	}
	if err := k.awaitEnding(rec, w.Network.Address.Addrs()); err != nil {
		return func() {}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	done = func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.promised, rec.Name)
	}
	had := rec.Attachments
	rec.Attachments = nil
	defer func() {
		if err != nil {
			rec.Attachments = had // it keeps its addresses over a start that fails
		}
	}()
	if len(w.Network.Join) > links.MaxLinks {
		return done, operation.Permanentf("spec.network.join names %d networks, at most %d are possible", len(w.Network.Join), links.MaxLinks)
	}
	c, err := k.look(rec)
	if err != nil {
		return done, err
	}
	var chosen []actual.Attachment
	for i, name := range w.Network.Join {
		at, err := c.attach(w, i, name, had)
		if err != nil {
			return done, fmt.Errorf("network %s: %w", name, err)
		}
		chosen = append(chosen, *at)
		c.taken.Add(at.Address4)
		c.taken.Add(at.Address6)
	}
	if i := slices.IndexFunc(chosen, func(a actual.Attachment) bool { return !a.Internal }); i >= 0 {
		chosen[i].Default = true
	}
	rec.Attachments, k.promised[rec.Name] = chosen, chosen
	k.fresh[rec.Name] = k.unused(attachments(rec))
	return done, nil
}

// awaitEnding waits for the link of a sandbox that has ended and had an address that is asked
// for. An address of one that has not is refused at once: a wait for it would hold a worker for
// the authors of such manifests.
func (k *Keeper) awaitEnding(rec *actual.Record, asked []netip.Addr) error {
	if len(asked) == 0 {
		return nil
	}
	records, err := k.records()
	for _, r := range records {
		if r.Name != rec.Name && slices.ContainsFunc(r.Attachments, func(a actual.Attachment) bool {
			return slices.Contains(asked, a.Address4) || slices.Contains(asked, a.Address6)
		}) {
			return nil
		}
	}
	return errors.Join(err, links.AwaitEnding(rec.UID, asked))
}

// choice is what is known while attachments are chosen.
type choice struct {
	k   *Keeper
	rec *actual.Record
	// taken are addresses of others, and what the host has.
	taken *addresses.Taken
	// host are routes of the host alone.
	host *addresses.Taken
	// used are the subnets of networks that records are attached to.
	used map[string][]netip.Prefix
}

// look finds out what others have.
func (k *Keeper) look(rec *actual.Record) (*choice, error) {
	host, err := links.Look()
	if err != nil {
		return nil, err
	}
	list, err := k.store.List()
	if err != nil {
		return nil, fmt.Errorf("find addresses that are taken: %w", err)
	}
	c := &choice{k: k, rec: rec, taken: &addresses.Taken{}, host: &addresses.Taken{Prefixes: host.Routes}, used: map[string][]netip.Prefix{}}
	c.taken.Prefixes = append(c.taken.Prefixes, host.Routes...)
	for _, r := range list.Records {
		if r.Name != rec.Name {
			c.has(r.Attachments)
		}
	}
	// One that can't be read may be put back by its copy, with its addresses.
	for i := range list.Quarantined {
		if r, err := k.store.Copy(list.Quarantined[i].Name); err == nil && r != nil && r.Name != rec.Name {
			c.has(r.Attachments)
		}
	}
	for name, at := range k.promised {
		if name != rec.Name {
			c.has(at)
		}
	}
	// Also of records that can't be read: what runs has its link.
	own := links.Of(rec.UID)
	for _, l := range host.Links {
		for _, a := range l.Addresses {
			if !own[l.Name] {
				c.taken.Add(a)
			}
		}
	}
	return c, nil
}

func (c *choice) has(at []actual.Attachment) {
	for i := range at {
		a := &at[i]
		c.taken.Add(a.Address4)
		c.taken.Add(a.Address6)
		for _, p := range []netip.Prefix{a.Subnet4, a.Subnet6} {
			if p.IsValid() && !slices.Contains(c.used[a.Network], p) {
				c.used[a.Network] = append(c.used[a.Network], p)
			}
		}
	}
}

// attach chooses one attachment.
func (c *choice) attach(w *Wanted, index int, name string, had []actual.Attachment) (*actual.Attachment, error) {
	spec := w.Declared(name)
	if spec == nil && name != networks.DefaultName {
		return nil, operation.Precondition(errors.New("there is no Network document of this name"))
	}
	sub, spec, err := c.subnets(name, spec, w.Pools)
	if err != nil {
		return nil, err
	}
	at := &actual.Attachment{
		Network: name, Link: links.Name(c.rec.UID, index), Interface: "eth" + strconv.Itoa(index),
		Subnet4: sub.Subnet4, Subnet6: sub.Subnet6, MTU: spec.MTU,
		Internal: sub.Scope.Internal, Isolated: sub.Scope.Isolated, NoIPv6: !*spec.IPv6,
	}
	var before actual.Attachment
	if i := slices.IndexFunc(had, func(a actual.Attachment) bool { return a.Network == name }); i >= 0 {
		before = had[i]
	}
	asked := w.Network.Address.Addrs()
	if at.Address4, err = c.address(at.Subnet4, name, before.Address4, asked); err != nil {
		return nil, err
	}
	if at.Address6, err = c.address(at.Subnet6, name, before.Address6, asked); err != nil {
		return nil, err
	}
	for _, a := range asked {
		if a != at.Address4 && a != at.Address6 {
			return nil, operation.Permanentf("spec.network.address: the network has no addresses of the family of %s", a)
		}
	}
	return at, nil
}

// address chooses the address of one family: the one that is asked for, or the one it had.
func (c *choice) address(subnet netip.Prefix, network string, had netip.Addr, asked []netip.Addr) (netip.Addr, error) {
	if !subnet.IsValid() {
		return netip.Addr{}, nil
	}
	for _, a := range asked {
		if a.Is4() != subnet.Addr().Is4() {
			continue
		}
		err := addresses.Check(subnet, a, c.taken)
		switch {
		case errors.Is(err, addresses.ErrTaken):
			return a, operation.Precondition(fmt.Errorf("spec.network.address: %w", err))
		case err != nil:
			return a, operation.Permanentf("spec.network.address: %w", err)
		}
		return a, nil
	}
	if had.IsValid() && addresses.Check(subnet, had, c.taken) == nil {
		return had, nil
	}
	a, err := addresses.Pick(subnet, network+"/"+c.rec.Name, c.taken)
	return a, exhausted(err)
}

// exhausted makes of an error that there is no room one that is cured by somebody who makes some.
func exhausted(err error) error {
	if errors.Is(err, addresses.ErrExhausted) {
		return operation.Precondition(err)
	}
	return err
}
