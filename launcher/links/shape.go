// SPDX-License-Identifier: Apache-2.0

package links

import (
	"bytes"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/netns"
)

// ErrNoShaper says that the kernel can't bound what passes a link.
var ErrNoShaper = errors.New("the kernel has no tbf (CONFIG_NET_SCH_TBF, module sch_tbf)")

// Rates are how many bits may pass in a second; 0 is no bound.
type Rates struct {
	// Egress is of what the sandbox sends, Ingress of what it receives.
	Egress, Ingress int64
}

// shaper is the handle of our queues: one of somebody else is not ours to remove.
var shaper = netlink.MakeHandle(0x5b0c, 0)

// Queues are those that the interfaces of a namespace had, by the number of these.
type Queues map[int]netlink.Qdisc

// LookAtQueues reads them of the host. The kernel tells of all interfaces or of none, so that
// who shapes many links looks once.
func LookAtQueues() (Queues, error) {
	h, err := open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return queues(h)
}

func queues(h *netlink.Handle) (Queues, error) {
	list, err := netns.List(func() ([]netlink.Qdisc, error) { return h.QdiscList(nil) })
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	out := Queues{}
	for _, q := range list {
		if q.Attrs().Parent == netlink.HANDLE_ROOT {
			out[q.Attrs().LinkIndex] = q
		}
	}
	return out, nil
}

// Shape bounds what passes a link, or no longer does. A queue can be put before what a link
// sends only, so each end has one: that of the host for what the sandbox receives, and that of
// the sandbox, in its namespace, for what it sends. The sentry, which has the namespace, may
// change neither it nor its packet socket. It is safe to repeat, and changes nothing where
// nothing is to be changed. host are the queues of the host.
func Shape(host Queues, ns *netns.Namespace, a *Attachment, r Rates) error {
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	if err := shape(h, host, a.Link, a.hostAddr(), r.Ingress, a.MTU); err != nil {
		return fmt.Errorf("bound what %s receives: %w", a.Sandbox, err)
	}
	err = inside(ns, func(h *netlink.Handle) error {
		guest, err := queues(h)
		if err != nil {
			return err
		}
		return shape(h, guest, a.Guest, a.guestAddr(), r.Egress, a.MTU)
	})
	if err != nil {
		return fmt.Errorf("bound what %s sends: %w", a.Sandbox, err)
	}
	return nil
}

func shape(h *netlink.Handle, there Queues, name string, address net.HardwareAddr, bits int64, mtu int) error {
	l, err := find(h, name)
	if err != nil {
		return err
	}
	if l == nil || !bytes.Equal(l.Attrs().HardwareAddr, address) {
		return fmt.Errorf("link %s: %w", name, ErrGone)
	}
	had := there[l.Attrs().Index]
	ours := had != nil && had.Attrs().Handle == shaper
	if bits == 0 {
		if !ours {
			return nil
		}
		if err := h.QdiscDel(had); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove the queue of %s: %w", name, err)
		}
		return nil
	}
	want := bucket(l.Attrs().Index, bits, mtu)
	if is, ok := had.(*netlink.Tbf); ok && ours && is.Rate == want.Rate && is.Buffer == want.Buffer && is.Limit == want.Limit {
		return nil
	}
	return explain(name, h.QdiscReplace(want))
}

// explain tells a kernel that does not know a kind of queue from other errors.
func explain(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %w", ErrNoShaper, err)
	}
	return fmt.Errorf("put a queue before %s: %w", name, err)
}

const (
	// leastBurst is enough for what a processor sends at once.
	leastBurst = 16 << 10
	// room is for the headers of a link, beside the MTU.
	room = 64
)

// bucket lets pass so many bits in a second: at once what comes in 10 ms or one packet, and
// what comes in 50 ms waits. More is dropped, which a sender notices as on any slow link.
func bucket(index int, bits int64, mtu int) *netlink.Tbf {
	rate := uint64(bits+7) / 8
	burst := uint32(max(rate/100, leastBurst, uint64(mtu+room)))
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: shaper, Parent: netlink.HANDLE_ROOT},
		Rate:       rate, Buffer: netlink.Xmittime(rate, burst), Limit: burst + uint32(rate/20),
	}
}

// CanShape returns an error unless the kernel can bound what passes a link. It is tried in a
// network namespace that nobody has.
func CanShape() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	return inside(ns, func(h *netlink.Handle) error {
		l, err := find(h, "lo")
		if err != nil {
			return err
		}
		if l == nil {
			return errors.New("a new network namespace has no loopback")
		}
		return shape(h, nil, "lo", l.Attrs().HardwareAddr, 1e6, 1500)
	})
}
