// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired/networks/public"
	"sandboxctl.dev/launcher/firewall/objects"
)

// program is what the table is to have.
type program struct {
	chains   []*chain
	sets     []*set
	counters []string
	// learned are the sets of names: name of a sandbox, name in DNS.
	learned map[[2]string]bool
	// group is where packets are logged to; 0 is nowhere.
	group uint16
	// timeouts are those of connections that are counted.
	timeouts objects.Timeouts

	byName map[string]*set
}

// chain is a list of rules; base is nil for one that others lead to.
type chain struct {
	name  string
	base  *base
	rules []rule
}

// base is where the kernel starts with a chain.
type base struct {
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
}

// set is a set or a map.
type set struct {
	nftables.Set
	elements []nftables.SetElement
	// kept is for sets that are filled by Learn.
	kept bool
}

func (p *program) chain(name string, b *base, rules ...rule) {
	p.chains = append(p.chains, &chain{name, b, rules})
}

// Sets that there is one of. Those that end with 4 and 6 are pairs.
const (
	setLinks     = "links"     // host ends
	setPorted    = "ported"    // protocols with ports
	setSources   = "sources"   // link and address of a sandbox
	setGateways  = "gateways"  // link and address of the host on it
	setAddresses = "addresses" // of sandboxes
	setPublished = "published" // protocol, address of the host, port → address, port
	setAnywhere  = "anywhere"  // protocol, port → address, port
	setNotPublic = "notpublic"

	mapSent     = "sent"     // link → chain that counts
	mapReceived = "received" // link → chain that counts
	mapDenied   = "denied"   // link → chain that counts and logs what its sandbox may not send
	mapBarred   = "barred"   // link → chain that counts and logs what may not be sent to it
	mapOpened   = "opened"   // link → chain that counts and logs connections, if that is wanted
	mapEntered  = "entered"
	mapTopology = "topology" // link → chain of its network
	mapEgress   = "egress"   // link → chain of its sandbox, if that has rules
	mapIngress  = "ingress"
	mapHost     = "host" // link → what of the host it may reach
)

// typeOf are addresses of a family.
func (f *family) typeOf() nftables.SetDatatype {
	if f == four {
		return nftables.TypeIPAddr
	}
	return nftables.TypeIP6Addr
}

func concat(types ...nftables.SetDatatype) nftables.SetDatatype {
	t, _ := nftables.ConcatSetType(types...) // an error only above five parts
	return t
}

// declare adds a set; what has a data type is a map.
func (p *program) declare(name string, key nftables.SetDatatype, data ...nftables.SetDatatype) *set {
	s := &set{Set: nftables.Set{Name: name, KeyType: key}}
	if len(data) > 0 {
		s.IsMap, s.DataType = true, concat(data...)
		if len(data) == 1 {
			s.DataType = data[0]
		}
	}
	p.sets = append(p.sets, s)
	p.byName[name] = s
	return s
}

func (p *program) add(set string, key []byte) {
	s := p.byName[set]
	s.elements = append(s.elements, nftables.SetElement{Key: key})
}

// lead has a map lead from a link to a chain.
func (p *program) lead(set, link, chain string) {
	s := p.byName[set]
	s.elements = append(s.elements, nftables.SetElement{Key: linkKey(link), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}})
}

// linkKey is the name of an interface, as the kernel compares it.
func linkKey(name string) []byte {
	key := make([]byte, 16)
	copy(key, name)
	return key
}

// compile makes the rules of a ruleset. The same ruleset makes the same rules, in whatever
// order its sandboxes are. timeouts is the kind of objects that are timeouts of connections, 0
// for none.
func compile(r *Ruleset, timeouts nftables.ObjType) (*program, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	sandboxes := slices.Clone(r.Sandboxes)
	slices.SortFunc(sandboxes, func(a, b Sandbox) int { return cmp.Compare(a.Name, b.Name) })
	p := &program{learned: map[[2]string]bool{}, byName: map[string]*set{}, group: r.LogGroup}
	p.declareSets()
	p.sources()
	p.nat()
	p.filter()
	p.networks(sandboxes)
	addresses := map[string][]netip.Addr{}
	for i := range sandboxes {
		for _, a := range sandboxes[i].Attachments {
			addresses[sandboxes[i].Name] = append(addresses[sandboxes[i].Name], a.addresses()...)
		}
	}
	publishers := map[string]string{}
	for _, link := range r.Closed {
		p.add(setLinks, linkKey(link)) // no address is a source there
	}
	kept := r.Kept.filled()
	if timeouts != 0 && slices.ContainsFunc(sandboxes, func(s Sandbox) bool { return s.Connections > 0 }) {
		p.timeouts = objects.TimeoutsOf(kept.States, timeouts)
	}
	for i := range sandboxes {
		s := &sandboxes[i]
		p.attach(s)
		p.count(s)
		p.connections(s, kept)
		p.reach(s, addresses)
		if err := p.publish(s, publishers); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *program) declareSets() {
	p.declare(setLinks, nftables.TypeIFName)
	p.declare(setPorted, nftables.TypeInetProto)
	for _, number := range transports {
		p.add(setPorted, []byte{number})
	}
	p.declare(setBrief, nftables.TypeInetProto)
	for _, number := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6} {
		p.add(setBrief, []byte{number})
	}
	for _, f := range families {
		p.declare(setSources+f.name, concat(nftables.TypeIFName, f.typeOf()))
		p.declare(setGateways+f.name, concat(nftables.TypeIFName, f.typeOf()))
		p.declare(setAddresses+f.name, f.typeOf())
		p.declare(setPublished+f.name, concat(nftables.TypeInetProto, f.typeOf(), nftables.TypeInetService), f.typeOf(), nftables.TypeInetService)
		p.declare(setAnywhere+f.name, concat(nftables.TypeInetProto, nftables.TypeInetService), f.typeOf(), nftables.TypeInetService)
		notPublic := p.declare(setNotPublic+f.name, f.typeOf())
		notPublic.Interval = true
		notPublic.elements = intervals(map[*family][]netip.Prefix{four: public.Not4, six: public.Not6}[f])
	}
	for _, name := range []string{mapSent, mapReceived, mapDenied, mapBarred, mapOpened, mapEntered, mapTopology, mapEgress, mapIngress, mapHost, mapConnections} {
		p.declare(name, nftables.TypeIFName, nftables.TypeVerdict)
	}
}

// intervals are prefixes as elements: where each starts, and what is behind it.
func intervals(list []netip.Prefix) (out []nftables.SetElement) {
	for _, p := range list {
		out = append(out, nftables.SetElement{Key: p.Addr().AsSlice()})
		last := p.Addr().AsSlice()
		for i, b := range maskOf(p) {
			last[i] |= ^b
		}
		end, _ := netip.AddrFromSlice(last)
		if end = end.Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// attach tells the sets of the links of a sandbox.
func (p *program) attach(s *Sandbox) {
	for _, a := range s.Attachments {
		link := linkKey(a.Link)
		p.add(setLinks, link)
		for _, addr := range a.addresses() {
			f := of(addr)
			p.add(setSources+f.name, slices.Concat(link, addr.AsSlice()))
			p.add(setAddresses+f.name, addr.AsSlice())
		}
		for _, gateway := range []netip.Addr{a.Gateway4, a.Gateway6} {
			if gateway.IsValid() {
				p.add(setGateways+of(gateway).name, slices.Concat(link, gateway.AsSlice()))
			}
		}
		p.lead(mapSent, a.Link, "sent_"+s.Name)
		p.lead(mapReceived, a.Link, "received_"+s.Name)
		p.lead(mapTopology, a.Link, "network_"+a.Network)
	}
}

func counted(name string) []expr.Any {
	return one(&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: name})
}

// learnedSet is the name of the set of a name's addresses; hash stands for names that are
// too long or have other letters than names in the kernel may.
func learnedSet(sandbox, name string, f *family) string {
	return fmt.Sprintf("name%s_%s_%s", f.name, sandbox, shortHash(name))
}
