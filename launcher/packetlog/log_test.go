// SPDX-License-Identifier: Apache-2.0

package packetlog

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/firewall"
	"sandboxctl.dev/launcher/netns"
)

// lines are what a log has been told.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func none() (map[string]firewall.Counts, error) { return nil, nil }

// newLog is a log as Open leaves it, without a socket.
func newLog(counters func() (map[string]firewall.Counts, error), out *lines) *Log {
	l := New("sandboxctl-test", counters, out.logger())
	l.lines, l.heard = rate.NewLimiter(linesPerSecond, lineBurst), map[of]uint64{}
	return l
}

// All sandboxes together have so many lines and no more; what is left out of each, by the
// kernel and here, is told as a number, once.
func TestFlood(t *testing.T) {
	t.Parallel()
	out, counts := &lines{}, map[string]firewall.Counts{}
	l := newLog(func() (map[string]firewall.Counts, error) { return maps.Clone(counts), nil }, out)
	l.base = map[string]firewall.Counts{"web": {Unlogged: [4]uint64{firewall.EgressRefused: 100}}}
	const packets = 5000
	for range packets {
		l.tell(message{"sandboxctl web egress refused", four(unix.IPPROTO_TCP, 0, 0, ports...)})
	}
	l.tell(message{"sandboxctl db ingress allowed", nil})
	l.tell(message{"of somebody else", four(unix.IPPROTO_TCP, 0, 0, ports...)})
	written := out.count(`msg="packet refused" sandbox=web direction=egress protocol=TCP source=10.208.0.9:4660 destination=192.0.2.1:80`)
	if written < lineBurst || written > lineBurst+2*linesPerSecond {
		t.Errorf("%d lines are written", written)
	}
	counts["web"] = firewall.Counts{Unlogged: [4]uint64{firewall.EgressRefused: 1100, firewall.IngressRefused: 7}}
	l.sum()
	if want := fmt.Sprintf(`msg="more packets refused than logged" sandbox=web direction=egress packets=%d`, 1000+packets-written); out.count(want) != 1 {
		t.Errorf("expected %s in\n%s", want, out.text.String())
	}
	if out.count(`msg="more connections allowed than logged" sandbox=db direction=ingress packets=1`) != 1 || out.count("somebody") != 0 {
		t.Error(out.text.String())
	}
	l.sum()
	if n := out.count("than logged"); n != 2 {
		t.Errorf("told %d times", n)
	}
	// Counters that began anew, and some that can't be read.
	l.tell(message{"sandboxctl web egress refused", nil})
	counts["web"] = firewall.Counts{Unlogged: [4]uint64{firewall.EgressRefused: 5}}
	l.heard[of{"web", firewall.EgressRefused}] = 0
	l.sum()
	if out.count("direction=egress packets=5\n") != 1 {
		t.Error(out.text.String())
	}
	l.counters = func() (map[string]firewall.Counts, error) { return nil, errors.New("no permission") }
	l.heard[of{"web", firewall.EgressRefused}] = 3
	l.sum()
	if out.count("no permission") != 1 || out.count("direction=egress packets=3\n") != 1 {
		t.Error(out.text.String())
	}
}

// namespace makes one in which the loopback is up, and packets of UDP are logged.
func namespace(t *testing.T, group uint16) *netns.Namespace {
	t.Helper()
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	on(t, n, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Name: "test", Family: nftables.TableFamilyINet})
		chain := c.AddChain(&nftables.Chain{Name: "out", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
			&expr.Log{Key: 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_GROUP, Group: group, Data: []byte("sandboxctl web egress refused")},
		}})
		return c.Flush()
	})
	return n
}

func on(t *testing.T, n *netns.Namespace, fn func() error) {
	t.Helper()
	if err := n.Do(fn); err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, n *netns.Namespace, times int) {
	t.Helper()
	on(t, n, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range times {
			if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte(net.IPv4(127, 0, 0, 1).To4())}); err != nil {
				return err
			}
		}
		return nil
	})
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 1000 {
		if is() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("not seen: %s", what)
}

// What the kernel logs is written, and summed up when it is time; after Close nothing is.
func TestLog(t *testing.T) {
	t.Parallel()
	out := &lines{}
	l := New("sandboxctl-test", none, out.logger())
	l.every = 100 * time.Millisecond
	n := namespace(t, l.group)
	defer l.Close()
	open := func() {
		t.Helper()
		on(t, n, func() error {
			group, err := l.Open()
			if err == nil && group != l.group {
				err = fmt.Errorf("group %d, expected %d", group, l.group)
			}
			return err
		})
	}
	const line = `msg="packet refused" sandbox=web direction=egress protocol=UDP source=127.0.0.1:`
	open()
	open() // the same
	send(t, n, 3)
	eventually(t, "three packets", func() bool { return out.count(line) == 3 })
	send(t, n, 2*lineBurst)
	eventually(t, "the number of those left out", func() bool { return out.count("more packets refused than logged") > 0 })
	l.Close()
	l.Close()
	was := out.count(line)
	send(t, n, 3)
	time.Sleep(1500 * time.Millisecond) // the kernel collects them for a second
	if got := out.count(line); got != was {
		t.Errorf("%d lines after Close", got-was)
	}
	// A start that ends after the daemon's keeper leaves no socket behind, nor who reads it.
	on(t, n, func() error {
		if group, err := l.Open(); group != 0 || err != nil || l.conn != nil {
			t.Errorf("opened after Close: group %d, %v", group, err)
		}
		return nil
	})
}

// A group that another program has is told, and can be had when that is gone.
func TestGroupTaken(t *testing.T) {
	t.Parallel()
	first, second := New("sandboxctl-test", none, (&lines{}).logger()), New("sandboxctl-test", none, (&lines{}).logger())
	n := namespace(t, first.group)
	defer first.Close()
	defer second.Close()
	open := func(l *Log) error {
		return n.Do(func() error {
			_, err := l.Open()
			return err
		})
	}
	if err := open(first); err != nil {
		t.Fatal(err)
	}
	if err := open(second); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "another program has group") {
		t.Errorf("%v, expected EPERM", err)
	}
	first.Close()
	if err := open(second); err != nil {
		t.Error(err)
	}
	if a, b := groupOf("sandboxctl"), groupOf("sandboxctl12345678"); a == b || a < 1024 || b < 1024 {
		t.Errorf("groups %d and %d", a, b)
	}
}
