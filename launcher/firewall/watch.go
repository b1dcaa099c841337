// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/firewall/objects"
	"sandboxctl.dev/launcher/firewall/sent"
)

// fingerprint is what a table looked like at a generation of the rules of its namespace,
// which counts all transactions of all programs. Counters, and sets that Learn fills, are
// not part of it.
type fingerprint struct {
	// generation is 0 if it is not known.
	generation uint32
	// sum is zero if the table was not read since a step has changed it.
	sum [sha256.Size]byte
}

// parts are what a table has that can be compared with a program without having read it before:
// the rules of chains that have some, and sets that have elements.
type parts struct {
	rules map[string][][]byte
	sets  map[string]bool
}

// seen says whether it is known what the table looks like.
func (f *fingerprint) seen() bool { return f.sum != [sha256.Size]byte{} }

// request is a message for the kernel about a table.
func request(kind uint16, family byte, attributes ...netlink.Attribute) (netlink.Message, error) {
	data, err := netlink.MarshalAttributes(attributes)
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...),
	}, err
}

func name(kind uint16, text string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(text), 0)}
}

func dial() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("firewall: netlink: %w", err)
	}
	_ = c.SetReadBuffer(bufferSize)
	return c, nil
}

// generation is how many transactions there were in the namespace.
func generation() (uint32, error) {
	c, err := dial()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return generationOf(c)
}

func generationOf(c *netlink.Conn) (uint32, error) {
	m, err := request(unix.NFT_MSG_GETGEN, unix.AF_UNSPEC)
	if err != nil {
		return 0, err
	}
	if err := c.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return 0, err
	}
	reply, err := c.Execute(m)
	if err != nil {
		return 0, fmt.Errorf("firewall: ask for the generation of rules: %w", err)
	}
	for _, r := range reply {
		for kind, value := range attributes(r) {
			if kind == unix.NFTA_GEN_ID && len(value) == 4 {
				return binary.BigEndian.Uint32(value), nil
			}
		}
	}
	return 0, errors.New("firewall: the kernel tells no generation of rules")
}

// attributes are those of a message, or none if it has no valid ones.
func attributes(m netlink.Message) map[uint16][]byte {
	if len(m.Data) < 4 {
		return map[uint16][]byte{}
	}
	return objects.Attributes(m.Data[4:])
}

// firstAttribute is the table, in messages about chains, rules, sets and elements.
const firstAttribute = 1

// text is an attribute that has text.
func text(m netlink.Message, kind uint16) string {
	return string(bytes.TrimRight(attributes(m)[kind], "\x00"))
}

// look reads all of a table that rules are made of. One that changes meanwhile is read
// again.
func look(table string, kept map[string]bool) (fingerprint, *parts, error) {
	c, err := dial()
	if err != nil {
		return fingerprint{}, nil, err
	}
	defer c.Close()
	for range 5 {
		before, err := generationOf(c)
		if err != nil {
			return fingerprint{}, nil, err
		}
		sum, has := sha256.New(), &parts{map[string][][]byte{}, map[string]bool{}}
		// A table that goes away meanwhile gives an error, and is seen next time.
		err = sumOf(c, sum, table, kept, has)
		after, again := generationOf(c)
		if again != nil || err != nil && before == after {
			return fingerprint{}, nil, errors.Join(err, again)
		}
		if before == after {
			return fingerprint{after, [sha256.Size]byte(sum.Sum(nil))}, has, nil
		}
	}
	return fingerprint{}, nil, nil // it never was, so it looks like nothing that we know
}

// is says whether parts are those of the program, and uses them up.
func (p *program) is(has *parts) bool {
	for _, ch := range p.chains {
		if !slices.EqualFunc(ch.rules, has.rules[ch.name], func(r rule, b []byte) bool { return sent.Is(r, b) }) {
			return false
		}
		delete(has.rules, ch.name)
	}
	for _, s := range p.sets {
		if has.sets[s.Name] != (!s.kept && len(s.elements) > 0) {
			return false
		}
		delete(has.sets, s.Name)
	}
	return len(has.rules)+len(has.sets) == 0
}

func sumOf(c *netlink.Conn, sum hash.Hash, table string, kept map[string]bool, has *parts) error {
	if _, err := dump(c, sum, unix.NFT_MSG_GETCHAIN, table, kept); err != nil {
		return err
	}
	rules, err := dump(c, sum, unix.NFT_MSG_GETRULE, table, kept)
	if err != nil {
		return err
	}
	for _, r := range rules {
		chain := text(r, unix.NFTA_RULE_CHAIN)
		has.rules[chain] = append(has.rules[chain], attributes(r)[unix.NFTA_RULE_EXPRESSIONS])
	}
	sets, err := dump(c, sum, unix.NFT_MSG_GETSET, table, kept)
	if err != nil {
		return err
	}
	for _, s := range sets {
		set := text(s, unix.NFTA_SET_NAME)
		elements, err := dump(c, sum, unix.NFT_MSG_GETSETELEM, table, kept, name(unix.NFTA_SET_ELEM_LIST_SET, set))
		if err != nil {
			return err
		}
		for _, e := range elements {
			if len(attributes(e)[unix.NFTA_SET_ELEM_LIST_ELEMENTS]) > 0 {
				has.sets[set] = true
			}
		}
	}
	return nil
}

// dump adds what the kernel has of a kind to a sum.
func dump(c *netlink.Conn, sum hash.Hash, kind uint16, table string, kept map[string]bool, more ...netlink.Attribute) ([]netlink.Message, error) {
	m, err := request(kind, unix.NFPROTO_INET, append([]netlink.Attribute{name(firstAttribute, table)}, more...)...)
	if err != nil {
		return nil, err
	}
	m.Header.Flags |= netlink.Dump
	reply, err := c.Execute(m)
	if err != nil {
		return nil, fmt.Errorf("firewall: read table %s: %w", table, err)
	}
	var bodies [][]byte
	// Older kernels list chains of all tables; newer ones count the elements of sets.
	reply = slices.DeleteFunc(reply, func(r netlink.Message) bool {
		return text(r, firstAttribute) != table || kind == unix.NFT_MSG_GETSET && kept[text(r, unix.NFTA_SET_NAME)]
	})
	for _, r := range reply {
		bodies = append(bodies, r.Data[4:]) // before it is the generation
	}
	if kind != unix.NFT_MSG_GETRULE {
		slices.SortFunc(bodies, bytes.Compare) // only rules have an order that means something
	}
	for _, b := range bodies {
		_ = binary.Write(sum, binary.BigEndian, uint32(len(b)))
		sum.Write(b)
	}
	return reply, nil
}

// Intact says whether the table is as the last Install left it.
func (t *Table) Intact() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.installed == nil {
		return false, nil
	}
	var intact bool
	err := t.ns.Do(func() (err error) {
		intact, err = t.asLeft()
		return err
	})
	return intact, err
}

// know reads what the table looks like, if a step has changed it since that was known. Only
// by that can a later change of it be told from one of another table. No start waits for it:
// the table is not held meanwhile, and what was read is forgotten if it has changed.
func (t *Table) know() {
	t.mu.Lock()
	p, left := t.installed, t.print
	if p == nil || left.generation == 0 || left.seen() {
		t.mu.Unlock()
		return
	}
	t.looks++
	t.mu.Unlock()
	var now fingerprint
	err := t.ns.Do(func() (err error) {
		now, _, err = look(t.table.Name, kept(p))
		return err
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && now.generation == left.generation && t.print == left {
		t.print = now
	}
}

// settle is how long Watch waits after a change of somebody else, so that a program that
// makes many is answered once.
const settle = 100 * time.Millisecond

// calm is how long nothing must have changed before the table is read that steps have
// changed: while many sandboxes are started, it would be read again and again.
const calm = 3 * settle

// Watch tells when somebody else has changed the table, until ctx ends. Changes of other
// tables tell nothing. It watches from when it returns, and tells at once if the table is
// not as Install left it. The channel is closed if it can't watch any more.
func (t *Table) Watch(ctx context.Context) (<-chan struct{}, error) {
	var c *netlink.Conn
	err := t.ns.Do(func() (err error) {
		if c, err = dial(); err != nil {
			return err
		}
		return c.JoinGroup(unix.NFNLGRP_NFTABLES)
	})
	if err != nil {
		if c != nil {
			_ = c.Close()
		}
		return nil, fmt.Errorf("firewall: watch: %w", err)
	}
	out := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	go func() {
		defer close(out)
		defer stop()
		for ctx.Err() == nil && t.watchOnce(c, out) {
		}
		_ = c.Close()
	}()
	return out, nil
}

// watchOnce looks at the table, tells, and waits for the next change; false if there will
// be none.
func (t *Table) watchOnce(c *netlink.Conn, out chan<- struct{}) bool {
	if intact, err := t.Intact(); err != nil || !intact {
		select {
		case out <- struct{}{}:
		default: // told already
		}
	}
	if !changed(c, time.Now().Add(calm)) {
		if t.know(); !changed(c, time.Time{}) {
			return false
		}
	}
	for deadline := time.Now().Add(settle); changed(c, deadline) && time.Now().Before(deadline); {
	}
	return true
}

// changed waits for messages of the kernel until a time; zero is without end. It is false if
// there were none, and if the connection was closed. What was lost since there was too much
// is a change too.
func changed(c *netlink.Conn, until time.Time) bool {
	if err := c.SetReadDeadline(until); err != nil {
		return false
	}
	_, err := c.Receive()
	return err == nil || errors.Is(err, unix.ENOBUFS)
}
