// SPDX-License-Identifier: Apache-2.0

package contention

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
)

// Index knows who has which port of the host and which address: all sandboxes that run or
// are being started, and stopped ones that are started again. Each is looked at once, when
// it is added, and each question costs as much as the asking manifest is long: a pass over
// thousands of sandboxes asks for each of them.
//
// The zero value is empty.
type Index struct {
	records []actual.Observed
	has     map[key]*holders
	added   int
}

// key is a port of the host or an address of a network.
type key struct {
	what string // protocol, or network
	port uint16 // 0 for an address
	at   netip.Addr
	// all says that it is a port at all addresses of the host; any, that it is one at
	// whatever address.
	all, any bool
}

// holder is a sandbox that has something.
type holder struct {
	order int
	entry *desired.Entry
	rec   *actual.Record // nil of one that is being started
}

func (h *holder) name() string { return h.entry.Sandbox.Metadata.Name }

// holders are those of one key. Of each kind the two that come first answer every question:
// if one of them is who asks, the other one is first.
type holders struct {
	running, stopped pair // the oldest
	other            pair // in between, or being started
}

type pair [2]*holder

// put adds one that comes before those for which it is so by the order.
func (p *pair) put(h *holder, before func(a, b *holder) bool) {
	switch {
	case p[0] != nil && p[0].name() == h.name() || p[1] != nil && p[1].name() == h.name():
	case p[0] == nil || before(h, p[0]):
		p[0], p[1] = h, p[0]
	case p[1] == nil || before(h, p[1]):
		p[1] = h
	}
}

// first is the first one that is not who asks.
func (p *pair) first(name string) *holder {
	if p[0] != nil && p[0].name() == name {
		return p[1]
	}
	return p[0]
}

// New returns an index of sandboxes on record, which are sorted by name. manifest is the one
// that counts for a record, nil if there is none; idle says that a stopped sandbox is not
// going to be started again by itself.
func New(records []actual.Observed, manifest func(rec *actual.Record) *desired.Entry, idle func(e *desired.Entry, rec *actual.Record) bool) *Index {
	x := &Index{records: records}
	for i := range records {
		rec := records[i].Record
		e := manifest(rec)
		if e == nil || !e.Sandbox.Spec.Network.Wants() || rec.Phase == actual.PhaseStopped && idle(e, rec) {
			continue
		}
		x.add(&holder{entry: e, rec: rec})
	}
	return x
}

// Add adds a sandbox that is being created, or is about to be.
func (x *Index) Add(e *desired.Entry) {
	if e.Sandbox.Spec.Network.Wants() {
		x.add(&holder{entry: e})
	}
}

func (x *Index) add(h *holder) {
	h.order = x.added
	x.added++
	if x.has == nil {
		x.has = map[key]*holders{}
	}
	for _, k := range keysOf(&h.entry.Sandbox.Spec.Network) {
		of := x.has[k]
		if of == nil {
			of = &holders{}
			x.has[k] = of
		}
		switch {
		case h.rec != nil && h.rec.Phase == actual.PhaseRunning:
			of.running.put(h, older)
		case h.rec != nil && h.rec.Phase == actual.PhaseStopped:
			of.stopped.put(h, older)
		default:
			of.other.put(h, func(a, b *holder) bool { return a.order < b.order })
		}
	}
}

// keysOf are the keys by which a holder is found. A port has two: who asks for it at one
// address meets those at that one and at all, and who asks for it at all meets everybody.
func keysOf(n *networks.Network) (out []key) {
	eachPort(n, func(protocol string, port uint16, at key) {
		at.what, at.port = protocol, port
		out = append(out, at, key{what: protocol, port: port, any: true})
	})
	return append(out, addressesOf(n)...)
}

// asked are the keys that are in the way of a sandbox.
func asked(n *networks.Network) (out []key) {
	eachPort(n, func(protocol string, port uint16, at key) {
		if at.all {
			out = append(out, key{what: protocol, port: port, any: true})
			return
		}
		at.what, at.port = protocol, port
		out = append(out, at, key{what: protocol, port: port, all: true})
	})
	return append(out, addressesOf(n)...)
}

func eachPort(n *networks.Network, each func(protocol string, port uint16, at key)) {
	published := n.Published()
	for i := range published {
		p := &published[i]
		_, count := p.First()
		for off := range count {
			each(p.Protocol, p.HostPort+uint16(off), key{at: p.Addr(), all: p.HostIP == ""})
		}
	}
}

// addressesOf are the addresses that are asked for, which is possible with one network.
func addressesOf(n *networks.Network) (out []key) {
	if n.Mode != networks.Bridge || len(n.Join) != 1 {
		return nil
	}
	for _, a := range n.Address.Addrs() {
		out = append(out, key{what: n.Join[0], at: a})
	}
	return out
}

// Of returns why a sandbox can't be started now, "" if it can: the reason and a sentence.
func (x *Index) Of(e *desired.Entry) (reason, why string) {
	_, reason, field, why := x.Holder(e)
	if reason == "" {
		return "", ""
	}
	return reason, field + ": " + why + then
}

// Holder is who has what a sandbox asks for, nil if nobody does; with the reason, the field
// and a sentence.
func (x *Index) Holder(e *desired.Entry) (other *desired.Entry, reason, field, why string) {
	n := &e.Sandbox.Spec.Network
	if !n.Wants() || len(x.has) == 0 {
		return nil, "", "", ""
	}
	name := e.Sandbox.Metadata.Name
	var mine *actual.Record
	if i, found := slices.BinarySearchFunc(x.records, name, func(o actual.Observed, name string) int { return cmp.Compare(o.Record.Name, name) }); found {
		mine = x.records[i].Record
	}
	var first *holder
	for _, k := range asked(n) {
		if of := x.has[k]; of != nil {
			for _, h := range of.against(name, mine) {
				if h != nil && (first == nil || h.order < first.order) {
					first = h
				}
			}
		}
	}
	if first == nil {
		return nil, "", "", ""
	}
	reason, field, why = between(n, n.Published(), first.entry)
	return first.entry, reason, field, why
}

// against are those that keep what they have from a sandbox, the first of each kind.
func (of *holders) against(name string, mine *actual.Record) (out [3]*holder) {
	// Of two that run the older one has it, as in the rules of the host. If the oldest one
	// is younger, all are.
	if h := of.running.first(name); h != nil && !(mine != nil && mine.Phase == actual.PhaseRunning && before(mine, h.rec)) {
		out[0] = h
	}
	// Of two that are started again, or are to be, the older one is first.
	if h := of.stopped.first(name); h != nil && !(mine != nil && before(mine, h.rec)) {
		out[1] = h
	}
	out[2] = of.other.first(name)
	return out
}

func older(a, b *holder) bool { return before(a.rec, b.rec) }

func before(a, b *actual.Record) bool {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.Name, b.Name)) < 0
}
