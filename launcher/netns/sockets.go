// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/wire"
)

// Args is what a sentry is told of the configuration: the links, addresses and
// routes of its network stack.
func (c *Config) Args() (wire.NetworkArgs, error) {
	var args wire.NetworkArgs
	for i := range c.Links {
		l := &c.Links[i]
		if l.Loopback {
			args.LoopbackLinks = append(args.LoopbackLinks, l.loopback())
			continue
		}
		link := wire.FDBasedLink{
			Name: l.Name, MTU: l.MTU, RXChecksumOffload: true, QDisc: wire.QDiscFIFO, NumChannels: 1,
			GSOMaxSize: wire.GVisorGSOMaxSize, GVisorGSOEnabled: true, Addresses: l.addresses(),
		}
		var err error
		if l.HardwareAddr != "" {
			if link.LinkAddress, err = net.ParseMAC(l.HardwareAddr); err != nil {
				return args, fmt.Errorf("interface %s: %w", l.Name, err)
			}
		}
		for _, n := range l.Neighbors {
			mac, err := net.ParseMAC(n.HardwareAddr)
			if err != nil {
				return args, fmt.Errorf("interface %s: %w", l.Name, err)
			}
			link.Neighbors = append(link.Neighbors, wire.Neighbor{IP: n.Address.AsSlice(), HardwareAddr: mac})
		}
		for i := range l.Routes {
			r := &l.Routes[i]
			if r.Destination.Bits() != 0 {
				link.Routes = append(link.Routes, r.wire())
				continue
			}
			def := &args.Defaultv4Gateway
			if r.Destination.Addr().Is6() {
				def = &args.Defaultv6Gateway
			}
			if def.Name != "" {
				continue // the kernel lists the preferred one first
			}
			*def = wire.DefaultRoute{Name: l.Name, Route: r.wire()}
		}
		args.FDBasedLinks = append(args.FDBasedLinks, link)
	}
	if len(args.LoopbackLinks) == 0 {
		// A sandbox has one, whether or not the namespace's is up.
		args.LoopbackLinks = wire.Loopback().LoopbackLinks
	}
	return args, nil
}

func (l *Link) addresses() []wire.IPWithPrefix {
	out := make([]wire.IPWithPrefix, len(l.Addresses))
	for i, p := range l.Addresses {
		out[i] = wire.IPWithPrefix{Address: p.Addr().AsSlice(), PrefixLen: p.Bits()}
	}
	return out
}

func (l *Link) loopback() wire.LoopbackLink {
	out := wire.LoopbackLink{Name: l.Name, Addresses: l.addresses()}
	for _, p := range l.Addresses {
		// The kernel has these in another table.
		out.Routes = append(out.Routes, wire.Route{Destination: *ipNet(p.Masked())})
	}
	for i := range l.Routes {
		out.Routes = append(out.Routes, l.Routes[i].wire())
	}
	return out
}

func (r *Route) wire() wire.Route {
	out := wire.Route{Destination: *ipNet(r.Destination.Masked()), MTU: uint32(r.MTU)}
	if r.Gateway.IsValid() {
		out.Gateway = r.Gateway.AsSlice()
	}
	return out
}

// Sockets opens the packet socket of every link of args, in order, and decides
// who segments. The caller closes them.
func (n *Namespace) Sockets(c *Config, args *wire.NetworkArgs) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			files = nil
		}
	}()
	byName := map[string]*Link{}
	for i := range c.Links {
		byName[c.Links[i].Name] = &c.Links[i]
	}
	err = n.Do(func() error {
		for i := range args.FDBasedLinks {
			link := &args.FDBasedLinks[i]
			f, hostGSO, err := packetSocket(byName[link.Name])
			if err != nil {
				return fmt.Errorf("open packet socket on %s: %w", link.Name, err)
			}
			files = append(files, f)
			if max := byName[link.Name].GSOMaxSize; hostGSO && max > 0 {
				link.GSOMaxSize, link.GVisorGSOEnabled = max, false
			}
		}
		return nil
	})
	return files, err
}

// packetBuffer is the size of a packet socket's buffers. The default of 208 KiB
// drops packets long before a link is full.
const packetBuffer = 4 << 20

func packetSocket(l *Link) (f *os.File, hostGSO bool, err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, false, err
	}
	f = os.NewFile(uintptr(fd), "packet socket of "+l.Name)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
			f = nil
		}
	}()
	index := l.Index
	if index == 0 {
		if index, err = indexOf(fd, l.Name); err != nil {
			return f, false, err
		}
	}
	if hostGSO = segments(fd, l.Name); hostGSO {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			hostGSO = false
		}
	}
	for _, opt := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, packetBuffer); err != nil {
			return f, hostGSO, fmt.Errorf("set buffer size: %w", err)
		}
	}
	// Last: from here on packets arrive.
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order
	err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all & 0xffff, Ifindex: index})
	return f, hostGSO, err
}

// indexOf finds an interface of the thread's namespace, which must be up: one that is not was
// made by somebody who died before it was set up.
func indexOf(fd int, name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return 0, fmt.Errorf("look at it: %w", err)
	}
	if ifr.Uint16()&unix.IFF_UP == 0 {
		return 0, fmt.Errorf("it is not up: %w", unix.ENETDOWN)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("look at it: %w", err)
	}
	return int(ifr.Uint32()), nil
}

// segments says whether the kernel segments for an interface, so that the
// sentry may hand over segments larger than its MTU.
func segments(fd int, name string) bool {
	const getGSO = 0x23 // ETHTOOL_GGSO
	value := struct{ cmd, data uint32 }{cmd: getGSO}
	ifr := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(ifr.name[:unix.IFNAMSIZ-1], name)
	//nolint:gosec // x/sys has no ETHTOOL_GGSO
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	return errno == 0 && value.data != 0
}
