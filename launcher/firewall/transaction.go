// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/firewall/objects"
)

// Namespace is a network namespace, entered to call fn; *netns.Namespace is one.
type Namespace interface {
	Do(fn func() error) error
}

// own is the namespace of this process.
type own struct{}

func (own) Do(fn func() error) error { return fn() }

// Table is the table of a namespace. All methods can be called at the same time.
type Table struct {
	ns    Namespace
	table *nftables.Table

	// mu is held while the table is changed, so that who looks at it sees no change of
	// ours half way.
	mu      sync.Mutex
	learned memory
	// installed is what the table has been made of, and print what it looked like
	// afterwards; nil and zero before the first Install.
	installed *program
	print     fingerprint
	// looks is how often all of the table was read.
	looks int
	// losses counts how often the table was found not to be what was installed.
	losses int
	// timeouts is the kind of objects that are timeouts of connections, 0 if the kernel lacks them.
	timeouts nftables.ObjType
}

// layout is the name of a chain that says how the table is made. A table without it is of
// another version: its sets may have other keys, and are replaced.
const layout = "layout_1"

// Open is the table of a namespace, nil for that of this process. It need not be there.
func Open(ns Namespace, name string) (*Table, error) {
	if !label().MatchString(name) {
		return nil, fmt.Errorf("firewall: %q is no name of a table", name)
	}
	if ns == nil {
		ns = own{}
	}
	return &Table{ns: ns, table: &nftables.Table{Name: name, Family: nftables.TableFamilyINet}, learned: memory{}, timeouts: objects.Kind}, nil
}

// Name is that of the table.
func (t *Table) Name() string { return t.table.Name }

// Limits of an exchange with the kernel. It answers at once; the time is for a host that
// has none.
const (
	exchangeTime = 30 * time.Second
	bufferSize   = 16 << 20
)

// connection is for one exchange: a socket that stays open would be one more thing to find
// broken.
func connection() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		// A transaction is one message, and each of its parts is answered. Who is not
		// root over the host has smaller buffers; then a large ruleset fails, and says so.
		_, _ = c.SetWriteBuffer(bufferSize), c.SetReadBuffer(bufferSize)
		return c.SetDeadline(time.Now().Add(exchangeTime))
	}))
}

// Install makes the table what the ruleset says, in one transaction: every packet sees the
// rules of before or those of after. On an error the table is as before. Counters, and
// addresses that were learned for rules that stay, are kept. If nobody else has changed the
// table, the kernel is told no more than what differs from the rules of before.
func (t *Table) Install(ctx context.Context, r *Ruleset) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.install(ctx, r, t.timeouts)
	if err != nil && p != nil && p.timeouts.Name != "" && errors.Is(t.ns.Do(p.timeouts.Probe), objects.ErrLacking) {
		// Then connections count for as long as the kernel keeps them by itself.
		if p, err = t.install(ctx, r, 0); err == nil {
			t.timeouts = 0
		}
	}
	if err != nil {
		return err
	}
	t.installed = p
	t.learned.forget(p.learned)
	return nil
}

func (t *Table) install(ctx context.Context, r *Ruleset, timeouts nftables.ObjType) (*program, error) {
	p, err := compile(r, timeouts)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = t.ns.Do(func() error {
		if t.step(p) {
			return nil
		}
		var err error
		// Another program can change our table, or any other one, at the same time. If it
		// did, we don't know whether what we see is what we made.
		for range 3 {
			var before uint32
			if before, err = generation(); err != nil {
				return err
			}
			if err = t.replace(p); err != nil {
				return err
			}
			// The rules are there. If they can't be read, Intact says so.
			t.looks++
			if t.print, _, err = look(t.table.Name, kept(p)); err == nil && t.print.generation == before+1 {
				return nil
			}
			t.print = fingerprint{}
		}
		return nil
	})
	if err != nil {
		return p, explain(err)
	}
	return p, nil
}

// Losses says how often the table was found to be gone, or not to be what was installed: for
// a time that nobody knows, connections began that no rule has let through. The first Install
// of a table that is not there is one.
func (t *Table) Losses() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.losses
}

// kept are the sets of a program whose elements change between installs.
func kept(p *program) map[string]bool {
	out := map[string]bool{}
	for _, s := range p.sets {
		out[s.Name] = s.kept
	}
	return out
}

// replace changes what is there into a program; if that fails, for what is there can't be
// changed into it, all is made anew.
func (t *Table) replace(p *program) error {
	there, err := t.look()
	if err != nil {
		return err
	}
	if !there.table {
		t.losses++
	}
	first := t.transaction(p, there)
	if first == nil || !there.table {
		return first
	}
	counts, err := t.counts()
	if err != nil {
		return errors.Join(first, err)
	}
	if err := t.transaction(p, &present{table: true, foreign: true, counts: counts}); err != nil {
		return errors.Join(first, err)
	}
	return nil
}

// present is what the kernel has of the table.
type present struct {
	table, foreign bool
	chains         map[string]bool
	sets           map[string]bool
	counters       map[string]bool
	// counts are what counters begin with that are made anew.
	counts map[string]*nftables.CounterObj
	// timeouts are of connections, with whether each is what its name says.
	timeouts map[string]bool
}

func (t *Table) look() (*present, error) {
	there := &present{chains: map[string]bool{}, sets: map[string]bool{}, counters: map[string]bool{}}
	c, err := connection()
	if err != nil {
		return nil, err
	}
	if there.table, err = t.listed(c); err != nil || !there.table {
		return there, err
	}
	chains, err := c.ListChainsOfTableFamily(t.table.Family)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	for _, chain := range chains {
		if chain.Table.Name == t.table.Name {
			there.chains[chain.Name] = true
		}
	}
	there.foreign = !there.chains[layout]
	sets, err := c.GetSets(t.table)
	if err != nil {
		there.foreign = true // of a type that we would never have made
	}
	for _, s := range sets {
		there.sets[s.Name] = true
	}
	there.counts, there.timeouts, err = objects.Read(t.table.Name)
	for name := range there.counts {
		there.counters[name] = true
	}
	return there, err
}

// There says whether the table is there, whatever it has.
func (t *Table) There() (there bool, err error) {
	err = t.ns.Do(func() error {
		c, err := connection()
		if err == nil {
			there, err = t.listed(c)
		}
		return err
	})
	return there, err
}

func (t *Table) listed(c *nftables.Conn) (bool, error) {
	tables, err := c.ListTablesOfFamily(t.table.Family)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(other *nftables.Table) bool { return other.Name == t.table.Name }), nil
}

// transaction sends the changes from what is there to a program.
func (t *Table) transaction(p *program, there *present) error {
	c, err := connection()
	if err != nil {
		return err
	}
	if there.table && there.foreign {
		c.AddTable(t.table) // so that it is there for certain
		c.DelTable(t.table)
		there = &present{counts: there.counts}
	}
	c.AddTable(t.table)
	c.AddChain(&nftables.Chain{Name: layout, Table: t.table})
	if there.table {
		c.FlushTable(t.table)
		for name := range there.sets {
			// What maps lead to is in use until they are empty.
			if s, ours := p.byName[name]; !ours || !s.kept {
				c.FlushSet(&nftables.Set{Table: t.table, Name: name})
			}
		}
	}
	t.remove(c, p, there)
	for _, name := range p.counters {
		obj := &nftables.CounterObj{Table: t.table, Name: name}
		if old := there.counts[name]; old != nil && !there.counters[name] {
			obj.Bytes, obj.Packets = old.Bytes, old.Packets
		}
		c.AddObj(obj)
	}
	if name := p.timeouts.Name; name != "" && !there.timeouts[name] {
		p.timeouts.Add(c, t.table)
	}
	for _, ch := range p.chains {
		t.addChain(c, ch)
	}
	for i, s := range p.sets {
		if err := t.addSet(c, s, uint32(i+1), there); err != nil {
			return err
		}
	}
	for _, ch := range p.chains {
		t.addRules(c, ch)
	}
	return c.Flush()
}

// remove takes away what a program does not have. The rules that used it are gone by then.
func (t *Table) remove(c *nftables.Conn, p *program, there *present) {
	wanted := map[string]bool{layout: true}
	for _, ch := range p.chains {
		wanted[ch.name] = true
	}
	for name := range there.chains {
		if !wanted[name] {
			c.DelChain(&nftables.Chain{Table: t.table, Name: name})
		}
	}
	for name := range there.sets {
		if p.byName[name] == nil {
			c.DelSet(&nftables.Set{Table: t.table, Name: name})
		}
	}
	counters := map[string]bool{}
	for _, name := range p.counters {
		counters[name] = true
	}
	for name := range there.counters {
		if !counters[name] {
			c.DeleteObject(&nftables.CounterObj{Table: t.table, Name: name})
		}
	}
	for name, right := range there.timeouts {
		if !right || name != p.timeouts.Name {
			objects.RemoveTimeouts(c, t.table, name)
		}
	}
}

func (t *Table) addChain(c *nftables.Conn, ch *chain) {
	chain := &nftables.Chain{Name: ch.name, Table: t.table}
	if ch.base != nil {
		accept := nftables.ChainPolicyAccept
		chain.Type, chain.Hooknum, chain.Priority, chain.Policy = ch.base.kind, ch.base.hook, &ch.base.priority, &accept
	}
	c.AddChain(chain)
}

func (t *Table) addSet(c *nftables.Conn, s *set, id uint32, there *present) error {
	made := s.Set
	made.Table, made.ID = t.table, id
	if err := c.AddSet(&made, nil); err != nil {
		return fmt.Errorf("firewall: set %s: %w", s.Name, err)
	}
	elements := s.elements
	if s.kept {
		if there.sets[s.Name] {
			return nil
		}
		elements = t.learned.elements(s.Name, time.Now())
	}
	if s.Dynamic {
		var err error
		if elements, err = t.counted(s, there.sets); err != nil {
			return err
		}
	}
	return t.sendElements(&set{Set: made}, elements, c.SetAddElements)
}

// Remove takes the table away. It is no error if it is not there.
func (t *Table) Remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.installed, t.print = nil, fingerprint{}
	return t.ns.Do(func() error {
		c, err := connection()
		if err != nil {
			return err
		}
		c.AddTable(t.table)
		c.DelTable(t.table)
		if err := c.Flush(); err != nil {
			return fmt.Errorf("firewall: remove table %s: %w", t.table.Name, err)
		}
		return nil
	})
}

// Counts are what the counters of a sandbox say, since its first Install.
type Counts struct {
	// Sent and Received are what passed the link, including what was refused later.
	SentPackets, SentBytes         uint64
	ReceivedPackets, ReceivedBytes uint64
	// Denied are those that it sent and rules refused, and what was forged.
	DeniedPackets, DeniedBytes uint64
	// Barred are those that were for it and rules refused.
	BarredPackets, BarredBytes uint64
	// Unlogged are packets that were not logged since there were too many of their kind.
	Unlogged [kinds]uint64
}

// Counters are those of all sandboxes of the table.
func (t *Table) Counters() (map[string]Counts, error) {
	var counts map[string]*nftables.CounterObj
	if err := t.ns.Do(func() (err error) {
		counts, err = t.counts()
		return err
	}); err != nil {
		return nil, err
	}
	out := map[string]Counts{}
	for name, c := range counts {
		kind, sandbox, ok := strings.Cut(name, "_")
		if !ok {
			continue
		}
		n := out[sandbox]
		switch kind {
		case "sent":
			n.SentPackets, n.SentBytes = c.Packets, c.Bytes
		case "received":
			n.ReceivedPackets, n.ReceivedBytes = c.Packets, c.Bytes
		case "denied":
			n.DeniedPackets, n.DeniedBytes = c.Packets, c.Bytes
		case "barred":
			n.BarredPackets, n.BarredBytes = c.Packets, c.Bytes
		}
		for k := range kinds {
			if kind == k.unlogged() {
				n.Unlogged[k] = c.Packets
			}
		}
		out[sandbox] = n
	}
	return out, nil
}

// Reset has the counters of a sandbox begin anew. Those that are not there are none.
func (t *Table) Reset(sandbox string) error {
	return t.ns.Do(func() error {
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.Close()
		words := []string{"sent", "received"}
		for k := range kinds {
			words = append(words, kindWords[k].counter, k.unlogged())
		}
		for _, word := range words {
			m, err := request(unix.NFT_MSG_GETOBJ_RESET, unix.NFPROTO_INET, name(unix.NFTA_OBJ_TABLE, t.table.Name), name(unix.NFTA_OBJ_NAME, word+"_"+sandbox),
				netlink.Attribute{Type: unix.NFTA_OBJ_TYPE, Data: binaryutil.BigEndian.PutUint32(unix.NFT_OBJECT_COUNTER)})
			if err == nil {
				_, err = c.Execute(m)
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("firewall: reset counters of %s: %w", sandbox, err)
			}
		}
		return nil
	})
}

func (t *Table) counts() (map[string]*nftables.CounterObj, error) {
	counts, _, err := objects.Read(t.table.Name)
	return counts, err
}
