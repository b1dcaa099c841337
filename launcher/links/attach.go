// SPDX-License-Identifier: Apache-2.0

package links

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/launcher/netns"
)

// Attach makes the link of an attachment into a namespace, with all that belongs to it. It
// is safe to repeat; on error nothing of it is left.
func Attach(ns *netns.Namespace, a *Attachment) error {
	err := attach(ns, a)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("attach %s to its network: %w", a.Sandbox, err)
	if rerr := Remove(a.Link); rerr != nil {
		err = errors.Join(err, rerr)
	}
	return err
}

func attach(ns *netns.Namespace, a *Attachment) error {
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	host, err := find(h, a.Link)
	if err != nil {
		return err
	}
	if host != nil {
		// Of the attempt before, whose namespace is about to go; or of this one.
		same, err := connected(ns, a)
		if err != nil {
			return err
		}
		if !same {
			if err := remove(h, a.Link); err != nil {
				return err
			}
			host = nil
		}
	}
	if host == nil {
		if err := crashpoint.Do(crashpoint.LinkAdd, func() error { return add(h, ns, a) }); err != nil {
			return err
		}
	}
	// The host's end first: packets that the sandbox sends find an interface that is set up.
	if err := crashpoint.Do(crashpoint.LinkHost, func() error { return setHost(h, a) }); err != nil {
		return err
	}
	return crashpoint.Do(crashpoint.LinkGuest, func() error { return setGuest(ns, a) })
}

// open opens a netlink socket in the namespace of this program.
func open() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return h, nil
}

// find returns the interface of a name, nil if there is none.
func find(h *netlink.Handle, name string) (netlink.Link, error) {
	l, err := h.LinkByName(name)
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at interface %s: %w", name, err)
	}
	return l, nil
}

// connected says whether the sandbox's end is in the namespace.
func connected(ns *netns.Namespace, a *Attachment) (same bool, err error) {
	err = inside(ns, func(h *netlink.Handle) error {
		l, err := find(h, a.Guest)
		same = l != nil && bytes.Equal(l.Attrs().HardwareAddr, a.guestAddr())
		return err
	})
	return same, err
}

// inside calls fn with a netlink socket of a namespace.
func inside(ns *netns.Namespace, fn func(*netlink.Handle) error) error {
	return ns.Do(func() error {
		h, err := open()
		if err != nil {
			return err
		}
		defer h.Close()
		return fn(h)
	})
}

// add makes the pair, both ends down.
func add(h *netlink.Handle, ns *netns.Namespace, a *Attachment) error {
	f, err := ns.File()
	if err != nil {
		return err
	}
	defer f.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = a.Link, a.MTU, a.hostAddr()
	err = h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: a.Guest, PeerHardwareAddr: a.guestAddr(), PeerNamespace: netlink.NsFd(int(f.Fd()))})
	if err != nil {
		return fmt.Errorf("make link %s: %w", a.Link, err)
	}
	return nil
}

// setHost sets up the host's end, or what is missing of it.
func setHost(h *netlink.Handle, a *Attachment) error {
	l, err := h.LinkByName(a.Link)
	if err != nil {
		return fmt.Errorf("look at interface %s: %w", a.Link, err)
	}
	if err := h.LinkSetAlias(l, a.Sandbox); err != nil {
		return fmt.Errorf("name %s after its sandbox: %w", a.Link, err)
	}
	// Before it is up: no address of the kernel's own choice.
	if err := setSysctls(a); err != nil {
		return err
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("switch %s on: %w", a.Link, err)
	}
	for _, f := range a.families() {
		if err := h.AddrReplace(l, &netlink.Addr{IPNet: single(f.gateway), Flags: unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("give %s address %s: %w", a.Link, f.gateway, err)
		}
		neigh := &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: f.number, State: netlink.NUD_PERMANENT, IP: f.sandbox.AsSlice(), HardwareAddr: a.guestAddr()}
		if err := h.NeighSet(neigh); err != nil {
			return fmt.Errorf("set neighbor %s on %s: %w", f.sandbox, a.Link, err)
		}
		if err := h.RouteReplace(&netlink.Route{
			LinkIndex: l.Attrs().Index, Family: f.number, Dst: single(f.sandbox), Scope: scope(&f), Protocol: unix.RTPROT_STATIC,
		}); err != nil {
			return fmt.Errorf("route %s to %s: %w", f.sandbox, a.Link, err)
		}
	}
	return nil
}

// scope is that of a route without a gateway.
func scope(f *family) netlink.Scope {
	if f.number == netlink.FAMILY_V6 {
		return netlink.SCOPE_UNIVERSE
	}
	return netlink.SCOPE_LINK
}

// setGuest sets up the sandbox's end. The kernel there is told of no address: the sandbox's own
// network stack has them, by Config, and nobody else answers for them.
func setGuest(ns *netns.Namespace, a *Attachment) error {
	return inside(ns, func(h *netlink.Handle) error {
		l, err := h.LinkByName(a.Guest)
		if err != nil {
			return fmt.Errorf("look at %s of the sandbox: %w", a.Guest, err)
		}
		if hasIPv6() {
			for name, v := range without {
				if err := setSysctl("ipv6", a.Guest, name, v); err != nil {
					return err
				}
			}
		}
		if err := h.LinkSetUp(l); err != nil {
			return fmt.Errorf("switch %s of the sandbox on: %w", a.Guest, err)
		}
		return nil
	})
}

// Remove removes a link, if it is there.
func Remove(link string) error {
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	return remove(h, link)
}

func remove(h *netlink.Handle, name string) error {
	l, err := find(h, name)
	if l == nil || err != nil {
		return err
	}
	err = h.LinkDel(l)
	// The end of the namespace may have been faster.
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}
