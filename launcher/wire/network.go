// SPDX-License-Identifier: Apache-2.0

package wire

import "net"

// MethodSetNetwork tells the sentry which links and routes its network stack
// gets when the root container starts.
const MethodSetNetwork = "containerManager.SetNetworkArgs"

// NetworkArgs is the argument of MethodSetNetwork. One packet socket for each of
// FDBasedLinks goes with it, in their order.
type NetworkArgs struct {
	LoopbackLinks    []LoopbackLink
	FDBasedLinks     []FDBasedLink `json:",omitempty"`
	Defaultv4Gateway DefaultRoute  `json:",omitzero"`
	Defaultv6Gateway DefaultRoute  `json:",omitzero"`
	// IsRestore says that a checkpoint is about to be restored.
	IsRestore bool `json:",omitempty"`
}

// LoopbackLink is a loopback interface.
type LoopbackLink struct {
	Name      string
	Addresses []IPWithPrefix
	Routes    []Route
}

// FDBasedLink is an interface behind packet sockets.
type FDBasedLink struct {
	Name             string
	MTU              int
	Addresses        []IPWithPrefix
	Routes           []Route
	GSOMaxSize       uint32
	GVisorGSOEnabled bool
	// RXChecksumOffload: the kernel has checked what arrives. Packets of the
	// same host have no checksum yet, so that it can't be checked again.
	RXChecksumOffload bool
	LinkAddress       net.HardwareAddr
	QDisc             int
	Neighbors         []Neighbor
	NumChannels       int
}

// QDiscFIFO is gVisor's default for FDBasedLink.QDisc.
const QDiscFIFO = 1

// GVisorGSOMaxSize is the size up to which gVisor puts segments together itself.
const GVisorGSOMaxSize = 1 << 16

// Neighbor is a permanent entry of the neighbor table.
type Neighbor struct {
	IP           net.IP
	HardwareAddr net.HardwareAddr
}

// IPWithPrefix is an address and the length of its subnet's prefix.
type IPWithPrefix struct {
	Address   net.IP
	PrefixLen int
}

// Route is a route of a link.
type Route struct {
	Destination net.IPNet
	Gateway     net.IP `json:",omitempty"`
	MTU         uint32 `json:",omitempty"`
}

// DefaultRoute is the way to everywhere else.
type DefaultRoute struct {
	Route Route
	Name  string // of the link
}

// Loopback is the interface of a sandbox without a network: it reaches itself
// and nothing else.
func Loopback() NetworkArgs {
	v4, v6 := net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback
	return NetworkArgs{LoopbackLinks: []LoopbackLink{{
		Name:      "lo",
		Addresses: []IPWithPrefix{{v4, 8}, {v6, 128}},
		Routes: []Route{
			{Destination: net.IPNet{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}},
			{Destination: net.IPNet{IP: v6, Mask: net.CIDRMask(128, 128)}},
		},
	}}}
}
