// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/firewall/objects"
)

// The kernel has one table of connections for all of the host. A sandbox that fills it takes
// the network of everybody: new connections to the host's own sshd are dropped. So each
// sandbox has a set of the connections that count for it, and a new one is refused when the
// set is full.
//
// An element is kept at least as long as the kernel keeps the connection, with answers or
// without: each packet renews it, by the time that the kernel itself has given the
// connection. `ct count` is no such bound: it does not count connections that have been
// closed, which the kernel keeps for two minutes more.
//
// With those two minutes a server could have a hundredth of the bound as new connections in a
// second. So timeouts of ours have the kernel forget closed ones of sandboxes after
// objects.Closed, and elements live as long. A guest can't fill the table by that: as many are
// alive as before. What the kernel has forgotten it takes out with delay: of a guest that does
// nothing but open and close it may hold four times the bound, until it looks for them once in a
// minute, or Recount has it do so, which reads the table each half a minute where a set is crowded.
//
// A connection counts for the sandbox that began it, and if none did, for the one that it
// leads to. What the host itself begins counts for nobody.

// Kept are how long the kernel keeps connections: of datagrams and echoes that are not
// answered, of TCP and of other protocols; and the longest, of TCP with nothing to say. States
// are those of TCP one by one.
type Kept struct {
	Datagrams, TCP, Other, Established time.Duration
	States                             objects.Times
}

// filled has the defaults of the kernel for what is not known.
func (k Kept) filled() Kept {
	return Kept{
		Datagrams: cmp.Or(k.Datagrams, 30*time.Second), TCP: cmp.Or(k.TCP, 5*time.Minute),
		Other: cmp.Or(k.Other, 10*time.Minute), Established: cmp.Or(k.Established, 120*time.Hour),
		States: k.States,
	}
}

const (
	setBrief       = "brief"       // protocols whose connections are kept for a short time
	mapConnections = "connections" // link → chain that counts connections
)

// openSet is the set of the connections of a sandbox. The bound is part of the name: a set
// that is there can't become larger.
func openSet(s *Sandbox) string { return fmt.Sprintf("open%d_%s", s.Connections, s.Name) }

// perSandbox are the rules that have a packet count, behind those that decide. They find out
// whose connection it is.
func perSandbox() []rule {
	link := func(load expr.Any) []expr.Any { return one(load, chainOf(mapConnections)) }
	return []rule{
		all(begun(), link(inLink())),
		all(begun(), one(inLink(), noLink()), link(outLink())),
		all(answered(), link(outLink())),
		all(answered(), one(outLink(), noLink()), link(inLink())),
	}
}

// begun matches packets from who began the connection, answered those from the other side.
func begun() []expr.Any    { return direction(0) }
func answered() []expr.Any { return direction(1) }

func direction(is byte) []expr.Any {
	return one(&expr.Ct{Register: first, Key: expr.CtKeyDIRECTION}, equals([]byte{is}))
}

// expiresWithin matches connections that the kernel forgets within a time if nothing comes.
func expiresWithin(d time.Duration) []expr.Any {
	return one(&expr.Ct{Register: first, Key: expr.CtKeyEXPIRATION},
		&expr.Byteorder{SourceRegister: first, DestRegister: first, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLte, Register: first, Data: binaryutil.BigEndian.PutUint32(uint32(d.Milliseconds()))})
}

// connections makes the set and the chain of a sandbox.
func (p *program) connections(s *Sandbox, kept Kept) {
	if s.Connections == 0 {
		return
	}
	set := p.declare(openSet(s), nftables.TypeInteger)
	set.kept, set.Dynamic, set.HasTimeout, set.Timeout, set.Size = true, true, true, kept.Established, uint32(s.Connections)
	for _, a := range s.Attachments {
		p.lead(mapConnections, a.Link, "connections_"+s.Name)
	}
	// It does not match when the set is full and has not got the connection.
	counts := func(d time.Duration) []expr.Any {
		return one(&expr.Ct{Register: first, Key: unix.NFT_CT_ID},
			&expr.Dynset{SrcRegKey: first, SetName: set.Name, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: d})
	}
	// It can be told only before the first packet is through.
	var forgets []expr.Any
	if p.timeouts.Name != "" {
		forgets = one(p.timeouts.Rule())
	}
	const known = stateEstablished | stateRelated
	steps := []time.Duration{objects.Closed, kept.Datagrams, 2 * time.Minute, kept.Other}
	slices.Sort(steps)
	var rules []rule
	for _, d := range steps {
		rules = append(rules, all(state(known), expiresWithin(d), counts(d), returns()))
	}
	p.chain("connections_"+s.Name, nil, append(rules,
		all(state(known), counts(kept.Established)),
		// One that began before it was counted, or while there was no table, goes on.
		all(state(known), returns()),
		all(one(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first}, in(setBrief)), counts(kept.Datagrams), returns()),
		all(protocol(unix.IPPROTO_TCP), counts(kept.TCP), forgets, returns()),
		all(counts(kept.Other), returns()),
		all(one(inLink(), in(setLinks)), jump("denied_"+s.Name)), all(one(inLink(), noLink()), jump("barred_"+s.Name)),
		all(continues("rejected")))...)
}

// counted are the elements that a new set of connections begins with: those of the set that it
// replaces, of the same sandbox with another bound. Who writes manifests could otherwise change
// the bound again and again, and have an empty set each time. What begins between this look and
// the transaction is counted when its next packet comes.
func (t *Table) counted(s *set, there map[string]bool) (out []nftables.SetElement, err error) {
	_, sandbox, _ := strings.Cut(s.Name, "_")
	for name := range there {
		if kind, of, _ := strings.Cut(name, "_"); of != sandbox || !strings.HasPrefix(kind, "open") {
			continue
		}
		had, err := t.elementsOf(name, s.KeyType)
		if err != nil {
			return nil, fmt.Errorf("firewall: read the connections of %s: %w", sandbox, err)
		}
		for _, e := range had {
			if len(out) < int(s.Size) && e.Expires > 0 {
				out = append(out, nftables.SetElement{Key: e.Key, Timeout: e.Expires})
			}
		}
	}
	return out, nil
}

// Recount takes connections that the kernel has forgotten before their time out of the sets:
// those that Forget was told of, and those of an interface that is gone. With crowded only
// sets are looked at that are more than half full. What can't be counted now is counted when
// its next packet comes. ids are those of all connections of the namespace.
func (t *Table) Recount(crowded bool, ids func() (map[[4]byte]bool, error)) error {
	t.mu.Lock()
	p := t.installed
	t.mu.Unlock()
	if p == nil {
		return nil
	}
	err := t.ns.Do(func() error {
		// No start waits for it: a table of connections may be long.
		there, err := t.counting(p, crowded)
		if err != nil || len(there) == 0 {
			return err
		}
		// After the sets: a connection that begins meanwhile is in none of what is compared.
		alive, err := ids()
		if err != nil {
			return err
		}
		c, err := connection()
		if err != nil {
			return err
		}
		some := false
		for name, elements := range there {
			var gone []nftables.SetElement
			for _, e := range elements {
				// One that ends by itself can be gone before it is removed, which is an error.
				if len(e.Key) == 4 && !alive[[4]byte(e.Key)] && e.Expires > endsSoon {
					gone = append(gone, nftables.SetElement{Key: e.Key})
				}
			}
			some = some || len(gone) > 0
			if err := t.sendElements(&set{Set: nftables.Set{Name: name}}, gone, c.SetDeleteElements); err != nil {
				return err
			}
		}
		if !some {
			return nil
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if err := c.Flush(); err != nil {
			return err
		}
		t.print.own()
		return nil
	})
	if err != nil {
		return fmt.Errorf("firewall: count the connections of sandboxes again: %w", err)
	}
	return nil
}

const endsSoon = 5 * time.Second // longer than a Recount takes

// counting are the elements of the sets of connections.
func (t *Table) counting(p *program, crowded bool) (map[string][]nftables.SetElement, error) {
	out := map[string][]nftables.SetElement{}
	for _, s := range p.sets {
		if !s.Dynamic {
			continue
		}
		elements, err := t.elementsOf(s.Name, s.KeyType)
		if err != nil {
			return nil, err
		}
		if n := len(elements); n > 0 && (!crowded || n > int(s.Size)/2) {
			out[s.Name] = elements
		}
	}
	return out, nil
}

// elementsOf are the elements of a set, none if somebody has removed it. The library says in words
// alone that the kernel knows no such set, so the kernel is asked for the set itself.
func (t *Table) elementsOf(set string, key nftables.SetDatatype) ([]nftables.SetElement, error) {
	c, err := connection()
	if err != nil {
		return nil, err
	}
	elements, err := c.GetSetElements(&nftables.Set{Table: t.table, Name: set, KeyType: key})
	if err != nil && t.removed(set) {
		return nil, nil
	}
	return elements, err
}

// removed says whether the kernel knows no such set of the table.
func (t *Table) removed(set string) bool {
	c, err := dial()
	if err != nil {
		return false
	}
	defer c.Close()
	m, err := request(unix.NFT_MSG_GETSET, unix.NFPROTO_INET, name(unix.NFTA_SET_TABLE, t.table.Name), name(unix.NFTA_SET_NAME, set))
	if err == nil {
		err = c.SetDeadline(time.Now().Add(exchangeTime))
	}
	if err == nil {
		_, err = c.Execute(m)
	}
	return errors.Is(err, unix.ENOENT)
}
