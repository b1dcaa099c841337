// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/firewall"
)

// testNS is a network namespace of a test; the kernel removes it with its last descriptor.
type testNS struct{ f *os.File }

func (n *testNS) Do(fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = fn()
		}
		result <- err
	}()
	return <-result
}

func newNS(t *testing.T) *testNS {
	t.Helper()
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	result, n := make(chan error), &testNS{}
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.f, err = os.Open("/proc/thread-self/ns/net")
		}
		if err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.f.Close() })
	return n
}

// Connections of an address are forgotten, in both families, whatever end it is; those of
// others are not.
func TestForget(t *testing.T) {
	t.Parallel()
	n := newNS(t)
	// Rules that ask for states of connections have the kernel keep them.
	table, err := firewall.Open(n, "sandboxctl-test")
	if err == nil {
		err = table.Install(t.Context(), &firewall.Ruleset{Sandboxes: []firewall.Sandbox{{Name: "a", Attachments: []firewall.Attachment{{Network: "a", Link: "sb0", Address4: netip.MustParseAddr("127.9.9.9")}}}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	err = n.Do(func() error {
		for _, to := range []string{"127.0.0.5:9", "127.0.0.6:9", "[::1]:9"} {
			p, err := net.ListenPacket("udp", to)
			if err != nil {
				return err
			}
			c, err := net.Dial("udp", to)
			if err != nil {
				return err
			}
			_, err = c.Write([]byte("?"))
			if err == nil {
				// The kernel knows of it when it has arrived.
				_ = p.SetReadDeadline(time.Now().Add(20 * time.Second))
				_, _, err = p.ReadFrom(make([]byte, 1))
			}
			if err := errors.Join(err, c.Close(), p.Close()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	forget := func(want int, addrs ...string) {
		t.Helper()
		var list []netip.Addr
		for _, a := range addrs {
			list = append(list, netip.MustParseAddr(a))
		}
		if got, err := Forget(n, list...); err != nil || got != want {
			t.Errorf("%d forgotten of %v, expected %d: %v", got, addrs, want, err)
		}
	}
	// has asks in the namespace.
	has := func(want bool, addrs ...string) {
		t.Helper()
		if _, err := os.Stat("/proc/self/net/nf_conntrack"); errors.Is(err, os.ErrNotExist) {
			want = false // then there is an error
		}
		for _, a := range addrs {
			var got bool
			err := n.Do(func() (err error) {
				got, err = Has(netip.MustParseAddr(a))
				return err
			})
			if got != want || err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a connection of %s: %v, expected %v: %v", a, got, want, err)
			}
		}
	}
	has(true, "127.0.0.5", "::1", "::ffff:127.0.0.6")
	has(false, "10.0.0.1", "fd00::6")
	forget(0)
	forget(0, "10.0.0.1", "fd00::6")
	forget(2, "127.0.0.5", "::1")
	has(false, "127.0.0.5", "::1")
	forget(0, "127.0.0.5", "::1")
	forget(1, "::ffff:127.0.0.6")
}
