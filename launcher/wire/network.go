// SPDX-License-Identifier: Apache-2.0

package wire

import "net"

// MethodSetNetwork tells the sentry which links and routes its network stack
// gets when the root container starts.
const MethodSetNetwork = "containerManager.SetNetworkArgs"

// NetworkArgs is the argument of MethodSetNetwork.
type NetworkArgs struct {
	LoopbackLinks []LoopbackLink
}

// LoopbackLink is a loopback interface.
type LoopbackLink struct {
	Name      string
	Addresses []IPWithPrefix
	Routes    []Route
}

// IPWithPrefix is an address and the length of its subnet's prefix.
type IPWithPrefix struct {
	Address   net.IP
	PrefixLen int
}

// Route is a route of a link.
type Route struct {
	Destination net.IPNet
}

// Loopback is the interface of a sandbox without a network: it reaches itself
// and nothing else.
func Loopback() NetworkArgs {
	v4, v6 := net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback
	return NetworkArgs{LoopbackLinks: []LoopbackLink{{
		Name:      "lo",
		Addresses: []IPWithPrefix{{v4, 8}, {v6, 128}},
		Routes: []Route{
			{net.IPNet{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}},
			{net.IPNet{IP: v6, Mask: net.CIDRMask(128, 128)}},
		},
	}}}
}
