// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)

const portDNS = 53

// nat replaces addresses: of the host by those of sandboxes that publish a port, and of
// sandboxes by those of the host.
func (p *program) nat() {
	before := &base{nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest}
	rules := []rule{
		// What came from outside for 127.0.0.1 would be dropped by the kernel, but not if
		// it had the address of a sandbox by then: a neighbor of the host could use what
		// is published for the host alone.
		all(within(loopback4, destination), returns()),
	}
	for _, f := range families {
		// Names are answered on gateways, also if a sandbox publishes port 53.
		rules = append(rules, all(f.is(), ported(), one(loadPort(first), equals(binaryutil.BigEndian.PutUint16(portDNS)),
			inLink(), f.load(f.destination, afterLink), in(setGateways+f.name)), returns()))
	}
	p.chain("published_in", before, append(rules, all(localDestination(), jump("published")))...)
	// The kernel can't give packets from ::1 another way: package loopback6 forwards them.
	p.chain("published_out", &base{nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest},
		all(within(loopback6, destination), returns()), all(localDestination(), jump("published")))
	p.chain("published", nil, translate(four, true), translate(four, false), translate(six, true), translate(six, false))
	p.masquerade()
}

// translate gives a connection the destination that a map has, for the address and port of
// the host, or for the port alone.
func translate(f *family, given bool) rule {
	port, registers, name := uint32(part1), uint32(part0), setAnywhere+f.name
	out := all(f.is(), ported(), one(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: registers}))
	if given {
		name, port = setPublished+f.name, part2
		if f == six {
			port = part5
		}
		out = append(out, f.load(f.destination, part1))
	}
	to := uint32(part1)
	if f == six {
		to = afterLink
	}
	return append(out, loadPort(port),
		&expr.Lookup{SourceRegister: registers, DestRegister: first, IsDestRegSet: true, SetName: name},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: first, RegProtoMin: to})
}

// masquerade gives packets the address of the host on the interface that they leave by: of
// a sandbox to elsewhere, of a sandbox to itself by a published port, and from 127.0.0.1.
// Otherwise answers would not come back here.
func (p *program) masquerade() {
	masquerade := one(&expr.Masq{})
	rules := []rule{all(one(outLink(), in(setLinks)), within(loopback4, source), masquerade)}
	for _, f := range families {
		rules = append(rules,
			all(f.is(), one(outLink(), f.load(f.source, afterLink), in(setSources+f.name)), masquerade),
			all(one(outLink(), noLink()), f.is(), one(f.load(f.source, first), in(setAddresses+f.name)), masquerade))
	}
	p.chain("masquerade", &base{nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource}, rules...)
}

// publish tells the maps of the ports of a sandbox. publishers are those of all sandboxes,
// by what the map has as its key.
func (p *program) publish(s *Sandbox, publishers map[string]string) error {
	for _, port := range s.Ports {
		found := false
		for _, f := range families {
			to, ok := s.address(f)
			if !ok || port.HostIP.IsValid() && of(port.HostIP) != f {
				continue
			}
			found = true
			for i := range port.Count {
				if err := p.publishOne(s.Name, f, port, to, uint16(i), publishers); err != nil {
					return err
				}
			}
		}
		if !found {
			return fmt.Errorf("firewall: sandbox %s: port %d is published on %s, and the sandbox has no address of that family", s.Name, port.HostPort, port.HostIP)
		}
	}
	return nil
}

func (p *program) publishOne(sandbox string, f *family, port Port, to netip.Addr, i uint16, publishers map[string]string) error {
	number := map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[port.Protocol]
	name, key := setAnywhere+f.name, []byte{number, 0, 0, 0}
	if port.HostIP.IsValid() && !port.HostIP.IsUnspecified() {
		name, key = setPublished+f.name, slices.Concat(key, port.HostIP.AsSlice())
	}
	key = append(key, padded(port.HostPort+i)...)
	if other := publishers[name+string(key)]; other != "" {
		return fmt.Errorf("firewall: port %d of the host (%s, IPv%s) is published by %s and by %s", port.HostPort+i, port.Protocol, f.name, other, sandbox)
	}
	publishers[name+string(key)] = sandbox
	set := p.byName[name]
	set.elements = append(set.elements, nftables.SetElement{Key: key, Val: slices.Concat(to.AsSlice(), padded(port.To+i))})
	return nil
}

// padded is a port as a part of a key.
func padded(port uint16) []byte { return append(binaryutil.BigEndian.PutUint16(port), 0, 0) }

// address is where a sandbox is reached: that of its first attachment with the family.
func (s *Sandbox) address(f *family) (netip.Addr, bool) {
	for _, a := range s.Attachments {
		for _, addr := range a.addresses() {
			if of(addr) == f {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}
