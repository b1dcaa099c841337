// SPDX-License-Identifier: Apache-2.0

// Package flows ends connections of sandboxes in the kernel's table of connections. Rules
// are asked when a connection begins, so one that began before they became stricter would
// go on; and one of a sandbox that is gone would belong to the next one with its address.
package flows

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace, entered to call fn; *netns.Namespace is one.
type Namespace interface {
	Do(fn func() error) error
}

// addresses are those of sandboxes.
type addresses map[netip.Addr]bool

// of says whether a connection, as the kernel lists it, has one of them as an end: before
// addresses were replaced, and after it.
func (a addresses) of(m netlink.Message) bool {
	if len(m.Data) < header {
		return false
	}
	found := false
	each(m.Data[header:], func(kind uint16, tuple []byte) {
		if kind != tupleOriginal && kind != tupleReply {
			return
		}
		each(tuple, func(kind uint16, ends []byte) {
			if kind != tupleAddresses {
				return
			}
			each(ends, func(_ uint16, address []byte) {
				if ip, ok := netip.AddrFromSlice(address); ok {
					found = found || a[ip.Unmap()]
				}
			})
		})
	})
	return found
}

// each calls fn with attributes. Those that can't be read are none.
func each(b []byte, fn func(kind uint16, data []byte)) {
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return
	}
	for _, a := range list {
		fn(a.Type&^(netlink.Nested|netlink.NetByteOrder), a.Data)
	}
}

// Of linux/netfilter/nfnetlink_conntrack.h.
const (
	get, remove               = 1, 2
	tupleOriginal, tupleReply = 1, 2
	tupleAddresses            = 1
)

// header is the length of what is before attributes: the family, a version and two bytes.
const header = 4

// Forget has the kernel forget all connections of addresses, in a namespace or, if that is
// nil, in the one of this process. The next packet of such a connection begins it again,
// and is judged by the rules of then. It returns how many there were.
func Forget(ns Namespace, addrs ...netip.Addr) (int, error) {
	of, forgotten := addresses{}, 0
	for _, addr := range addrs {
		of[addr.Unmap()] = true
	}
	forget := func() error {
		c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return fmt.Errorf("forget connections of sandboxes: %w", err)
		}
		defer c.Close()
		// Those that the kernel did not list, for the table changed, are found by another
		// look.
		for look := 1; ; look++ {
			n, whole, err := of.forget(c)
			forgotten += n
			if err == nil && !whole && look == looks {
				err = errors.New("the table of connections changes all the time")
			}
			if err != nil {
				return fmt.Errorf("forget connections of sandboxes: %w", err)
			}
			if whole {
				return nil
			}
		}
	}
	if ns == nil {
		err := forget()
		return forgotten, err
	}
	err := ns.Do(forget)
	return forgotten, err
}

// looks are how often a table that changes all the time is looked at.
const looks = 5

// dumps has one table at a time be in memory: it may have a million connections, and those who
// want to see it are as many as there are starts at a time.
var dumps sync.Mutex

// forget looks at all connections once, of both families: the kernel goes through its whole
// table each time, which is made for as many as there may be. It is whole if the table did not
// change its size meanwhile.
func (a addresses) forget(c *netlink.Conn) (n int, whole bool, err error) {
	request := func(kind uint16, flags netlink.HeaderFlags, data []byte) ([]netlink.Message, error) {
		return c.Execute(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | kind), Flags: netlink.Request | flags}, Data: data})
	}
	dumps.Lock()
	defer dumps.Unlock()
	list, err := request(get, netlink.Dump, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0})
	if err != nil {
		return 0, false, err
	}
	whole = true
	for _, m := range list {
		whole = whole && m.Header.Flags&netlink.DumpInterrupted == 0
		if !a.of(m) {
			continue
		}
		// One that ends by itself meanwhile is no error.
		if _, err := request(remove, netlink.Acknowledge, m.Data); err != nil && !errors.Is(err, os.ErrNotExist) {
			return n, false, err
		}
		n++
	}
	return n, whole, nil
}

// Has says whether the kernel has a connection of an address, in the namespace of this thread.
// It is much faster than Forget, and may overlook one while the table changes: it is for
// addresses that nobody had. Not every kernel has the file.
func Has(addrs ...netip.Addr) (bool, error) {
	f, err := os.Open("/proc/thread-self/net/nf_conntrack")
	if err != nil {
		return false, fmt.Errorf("look for connections of sandboxes: %w", err)
	}
	defer f.Close()
	of := addresses{}
	for _, addr := range addrs {
		of[addr.Unmap()] = true
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		for word := range strings.FieldsSeq(lines.Text()) {
			end, address, _ := strings.Cut(word, "=")
			if end != "src" && end != "dst" {
				continue
			}
			if ip, err := netip.ParseAddr(address); err == nil && of[ip.Unmap()] {
				return true, nil
			}
		}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("look for connections of sandboxes: %w", err)
	}
	return false, nil
}
