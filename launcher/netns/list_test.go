// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// A list that changes while it is read is read again, some times; other errors are told at once.
func TestList(t *testing.T) {
	t.Parallel()
	part := []int{1}
	whole := []int{1, 2}
	for name, c := range map[string]struct {
		interrupted int
		then        error
		calls       int
		want        []int
	}{
		"whole":             {0, nil, 1, whole},
		"changed":           {listTries - 1, nil, listTries, whole},
		"changes for ever":  {1000, netlink.ErrDumpInterrupted, listTries, nil},
		"fails":             {0, unix.EPERM, 1, nil},
		"changed and fails": {2, unix.EPERM, 3, nil},
	} {
		calls := 0
		got, err := List(func() ([]int, error) {
			calls++
			switch {
			case calls <= c.interrupted:
				return part, fmt.Errorf("list: %w", netlink.ErrDumpInterrupted)
			case c.then != nil:
				return nil, c.then
			}
			return whole, nil
		})
		if !errors.Is(err, c.then) || calls != c.calls || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v after %d calls, expected %v, %v after %d", name, got, err, calls, c.want, c.then, c.calls)
		}
	}
}

// What a namespace has is read while interfaces come and go there.
func TestScrapeWhileOthersChange(t *testing.T) {
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	dummy := func(h *netlink.Handle, name string) (*netlink.Veth, error) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		l := &netlink.Veth{LinkAttrs: attrs, PeerName: name + "p"}
		return l, h.LinkAdd(l)
	}
	// So many that the kernel tells of them in several parts.
	if err := n.netlink(func(h *netlink.Handle) error {
		for i := range 100 {
			if _, err := dummy(h, fmt.Sprint("d", i)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(over)
	wg.Go(func() {
		_ = n.netlink(func(h *netlink.Handle) error {
			for {
				l, err := dummy(h, "comes")
				if err == nil {
					err = h.LinkDel(l)
				}
				if err != nil {
					t.Error(err)
					return err
				}
				select {
				case <-over:
					return nil
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	})
	for range 300 {
		if _, err := n.Scrape(); err != nil {
			t.Fatal(err)
		}
	}
}
