// SPDX-License-Identifier: Apache-2.0

package links

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/netns"
)

// rootOf is the queue of a link: its kind, and its rate in bytes if it is one of ours.
func rootOf(t *testing.T, n *netns.Namespace, name string) (kind string, rate uint64) {
	t.Helper()
	on(t, n, func() error {
		h, err := open()
		if err != nil {
			return err
		}
		defer h.Close()
		l, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		list, err := h.QdiscList(l)
		for _, q := range list {
			if q.Attrs().Parent == netlink.HANDLE_ROOT {
				kind = q.Type()
				if tbf, ok := q.(*netlink.Tbf); ok {
					rate = tbf.Rate
				}
			}
		}
		return err
	})
	return kind, rate
}

func shapeNow(ns *netns.Namespace, a *Attachment, r Rates) error {
	host, err := LookAtQueues()
	if err != nil {
		return err
	}
	return Shape(host, ns, a, r)
}

// Each end has the queue of what it sends; a change replaces it, what somebody has done to it
// is undone, and a queue of somebody else stays where none is wanted.
func TestShape(t *testing.T) {
	t.Parallel()
	host, web := namespace(t), namespace(t)
	a := attachment("uid of web", 0)
	on(t, host, func() error { return Attach(web, a) })
	expect := func(egress, ingress uint64) {
		t.Helper()
		if kind, rate := rootOf(t, host, a.Link); rate != ingress || (kind == "tbf") != (ingress > 0) {
			t.Errorf("the host's end has %s with %d, expected %d", kind, rate, ingress)
		}
		if kind, rate := rootOf(t, web, a.Guest); rate != egress || (kind == "tbf") != (egress > 0) {
			t.Errorf("the sandbox's end has %s with %d, expected %d", kind, rate, egress)
		}
	}
	set := func(egress, ingress int64) {
		t.Helper()
		on(t, host, func() error { return shapeNow(web, a, Rates{Egress: egress, Ingress: ingress}) })
	}
	set(0, 0)
	expect(0, 0)
	for range 2 {
		set(8e6, 16e6)
		expect(1e6, 2e6)
	}
	set(100e9, 0) // more than 32 bits can hold
	expect(12500e6, 0)
	set(256e3, 8e6)
	expect(32e3, 1e6)
	// Somebody takes both away, or puts another one there.
	remove := func(n *netns.Namespace, name string) {
		t.Helper()
		on(t, n, func() error {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			return netlink.QdiscDel(&netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: shaper, Parent: netlink.HANDLE_ROOT}})
		})
	}
	remove(host, a.Link)
	remove(web, a.Guest)
	expect(0, 0)
	set(256e3, 8e6)
	expect(32e3, 1e6)
	remove(host, a.Link)
	on(t, host, func() error {
		l, err := netlink.LinkByName(a.Link)
		if err != nil {
			return err
		}
		return netlink.QdiscAdd(&netlink.Htb{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(7, 0), Parent: netlink.HANDLE_ROOT}, Version: 3, Rate2Quantum: 10})
	})
	set(0, 0)
	if kind, _ := rootOf(t, host, a.Link); kind != "htb" {
		t.Errorf("what somebody else has set is %s now", kind)
	}
	set(0, 8e6)
	expect(0, 1e6)
	if err := host.Do(func() error { return shapeNow(web, attachment("uid of another", 0), Rates{Ingress: 1e6}) }); !errors.Is(err, ErrGone) {
		t.Errorf("a link that is not there: %v", err)
	}
}

// The largest packet of each MTU passes at the slowest rate, and the kernel has what was asked.
func TestBucket(t *testing.T) {
	t.Parallel()
	for _, mtu := range []int{1280, 1500, 65535} {
		for _, bits := range []int64{256e3, 10e6, 1e9, 100e9} {
			b := bucket(1, bits, mtu)
			// The kernel has nanoseconds in 32 bits, and ticks of 64 of them.
			if size := netlink.Xmitsize(b.Rate, b.Buffer); int(size) < mtu+14 || uint64(b.Buffer)<<6 >= 1<<32 {
				t.Errorf("%d bits and an MTU of %d: a bucket of %d bytes, %d ticks", bits, mtu, size, b.Buffer)
			}
			if int(b.Limit) < mtu || uint64(b.Limit) > b.Rate/10+uint64(mtu)+leastBurst {
				t.Errorf("%d bits and an MTU of %d: %d bytes may wait", bits, mtu, b.Limit)
			}
		}
	}
}

// What passes is as much as was said, in each direction.
func TestShaped(t *testing.T) {
	t.Parallel()
	host, web := namespace(t), namespace(t)
	loopback(t, host)
	a := attachment("uid of web", 0)
	on(t, host, func() error {
		changes, err := Forwarding(true, true)
		return errors.Join(err, Apply(changes), Attach(web, a), settle(web, a), shapeNow(web, a, Rates{Egress: 4e6, Ingress: 8e6}))
	})
	for _, c := range []struct {
		what     string
		from, to *netns.Namespace
		at       netip.Addr
		bits     float64
	}{
		{"egress", web, host, a.Gateway4, 4e6},
		{"ingress", host, web, a.Address4, 8e6},
	} {
		got := received(t, c.from, c.to, c.at)
		if got > 1.5*c.bits || got < c.bits/10 { // a busy machine is slow, and never too fast
			t.Errorf("%s: %.0f bits in a second, expected at most about %.0f", c.what, got, c.bits)
		}
	}
}

// received is how many bits in a second arrive of datagrams that are sent as fast as possible.
func received(t *testing.T, from, to *netns.Namespace, at netip.Addr) float64 {
	t.Helper()
	var in, out int
	socket := func(n *netns.Namespace, fd *int, use func(int) error) {
		t.Helper()
		on(t, n, func() (err error) {
			if *fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
				return err
			}
			return use(*fd)
		})
		t.Cleanup(func() { _ = unix.Close(*fd) })
	}
	sa := &unix.SockaddrInet4{Port: 9000, Addr: at.As4()}
	socket(to, &in, func(fd int) error { return unix.Bind(fd, sa) })
	socket(from, &out, func(fd int) error { return unix.Connect(fd, sa) })
	b, bytes := make([]byte, 1200), 0
	began := time.Now()
	for time.Since(began) < 2*time.Second {
		_, _ = unix.Write(out, b) // when the queue is full it is dropped
		for {
			n, err := unix.Read(in, b)
			if err != nil || n <= 0 {
				break
			}
			bytes += n + 28
		}
	}
	return float64(bytes) * 8 / time.Since(began).Seconds()
}

// A kernel that lacks a kind of queue says so in a way that is told apart.
func TestUnshaped(t *testing.T) {
	t.Parallel()
	n := namespace(t)
	err := n.Do(func() error {
		l, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return explain("lo", netlink.QdiscReplace(&netlink.GenericQdisc{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: shaper, Parent: netlink.HANDLE_ROOT}, QdiscType: "nonesuch",
		}))
	})
	if !errors.Is(err, ErrNoShaper) {
		t.Errorf("%v, expected %v", err, ErrNoShaper)
	}
	if err := explain("lo", unix.EPERM); errors.Is(err, ErrNoShaper) || !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}

func TestCanShape(t *testing.T) {
	t.Parallel()
	namespace(t) // skips where none can be made
	if err := CanShape(); err != nil {
		t.Error(err)
	}
}
