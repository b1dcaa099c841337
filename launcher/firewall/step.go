// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"sandboxctl.dev/launcher/firewall/objects"
)

// difference is what makes the table of one program that of another one. What both have is
// not in it, so that a sandbox that comes among many costs what belongs to it alone.
type difference struct {
	// chainsChanged are those with other rules than before.
	chainsGone, chainsChanged, chainsNew []*chain
	setsGone, setsNew                    []*set
	// elementsGone and elementsNew are sets that stay, with these elements alone.
	elementsGone, elementsNew []*set
	countersGone, countersNew []string
	// timeoutsGone and timeoutsNew may be none.
	timeoutsGone, timeoutsNew objects.Timeouts
}

func (d *difference) empty() bool { return reflect.ValueOf(*d).IsZero() }

// differ compares programs. It is false if a set or a base chain was declared in another
// way: that can't be changed, and all is made anew.
func differ(old, now *program) (*difference, bool) {
	d := &difference{}
	if !d.chains(old, now) || !d.sets(old, now) {
		return nil, false
	}
	d.countersGone, d.countersNew = without(old.counters, now.counters), without(now.counters, old.counters)
	if old.timeouts != now.timeouts {
		d.timeoutsGone, d.timeoutsNew = old.timeouts, now.timeouts
	}
	return d, true
}

// without are the names of one list that the other one does not have.
func without(list, others []string) (out []string) {
	has := make(map[string]bool, len(others))
	for _, name := range others {
		has[name] = true
	}
	for _, name := range list {
		if !has[name] {
			out = append(out, name)
		}
	}
	return out
}

func (d *difference) chains(old, now *program) bool {
	had := make(map[string]*chain, len(old.chains))
	for _, ch := range old.chains {
		had[ch.name] = ch
	}
	for _, ch := range now.chains {
		was := had[ch.name]
		delete(had, ch.name)
		switch {
		case was == nil:
			d.chainsNew = append(d.chainsNew, ch)
		case !reflect.DeepEqual(was.base, ch.base):
			return false
		case !slices.EqualFunc(was.rules, ch.rules, func(a, b rule) bool { return slices.EqualFunc(a, b, same) }):
			d.chainsChanged = append(d.chainsChanged, ch)
		}
	}
	for _, ch := range had {
		d.chainsGone = append(d.chainsGone, ch)
	}
	return true
}

// same compares expressions. Those that most rules are made of are not compared by
// reflection: there are tens of them for each sandbox, at each start.
func same(a, b expr.Any) bool {
	switch a := a.(type) {
	case *expr.Meta:
		b, ok := b.(*expr.Meta)
		return ok && *a == *b
	case *expr.Lookup:
		b, ok := b.(*expr.Lookup)
		return ok && *a == *b
	case *expr.Payload:
		b, ok := b.(*expr.Payload)
		return ok && *a == *b
	case *expr.Verdict:
		b, ok := b.(*expr.Verdict)
		return ok && *a == *b
	case *expr.Objref:
		b, ok := b.(*expr.Objref)
		return ok && *a == *b
	case *expr.Cmp:
		b, ok := b.(*expr.Cmp)
		return ok && a.Op == b.Op && a.Register == b.Register && bytes.Equal(a.Data, b.Data)
	}
	return reflect.DeepEqual(a, b)
}

func (d *difference) sets(old, now *program) bool {
	for _, s := range now.sets {
		was := old.byName[s.Name]
		switch {
		case was == nil:
			d.setsNew = append(d.setsNew, s)
			continue
		case was.kept != s.kept || !reflect.DeepEqual(was.Set, s.Set):
			return false
		case s.kept:
			continue // Learn fills it
		case s.Interval:
			// Its elements are ends of intervals, which mean something only in pairs.
			if !reflect.DeepEqual(was.elements, s.elements) {
				return false
			}
			continue
		}
		gone, added := compare(was.elements, s.elements)
		if len(gone) > 0 {
			d.elementsGone = append(d.elementsGone, &set{Set: s.Set, elements: gone})
		}
		if len(added) > 0 {
			d.elementsNew = append(d.elementsNew, &set{Set: s.Set, elements: added})
		}
	}
	for _, s := range old.sets {
		if now.byName[s.Name] == nil {
			d.setsGone = append(d.setsGone, s)
		}
	}
	return true
}

// compare says which elements go and which come. One with another value does both: the
// kernel refuses a second value of a key.
func compare(old, now []nftables.SetElement) (gone, added []nftables.SetElement) {
	had := make(map[string]*nftables.SetElement, len(old))
	for i := range old {
		had[string(old[i].Key)] = &old[i]
	}
	for i := range now {
		e := &now[i]
		was := had[string(e.Key)]
		delete(had, string(e.Key))
		if was != nil && bytes.Equal(was.Val, e.Val) && leads(was) == leads(e) {
			continue
		}
		if was != nil {
			gone = append(gone, nftables.SetElement{Key: e.Key})
		}
		added = append(added, *e)
	}
	for key := range had {
		gone = append(gone, nftables.SetElement{Key: []byte(key)})
	}
	return gone, added
}

// leads is where an element of a map leads to.
func leads(e *nftables.SetElement) expr.Verdict {
	if e.VerdictData == nil {
		return expr.Verdict{}
	}
	return *e.VerdictData
}

// step changes the table from what it is known to be into a program, by the difference of
// the two, and says whether that was done. Otherwise nothing is known of the table: somebody
// has changed it, or the kernel refuses the change.
func (t *Table) step(p *program) bool {
	if t.installed == nil {
		return false
	}
	if as, err := t.asLeft(); err != nil || !as {
		return false
	}
	d, possible := differ(t.installed, p)
	if !possible {
		return false
	}
	if d.empty() {
		return true
	}
	before := t.print.generation
	t.print = fingerprint{}
	if err := t.change(d); err != nil {
		return false
	}
	after, err := generation()
	if err != nil || after != before+1 {
		return false // somebody else was there at the same time
	}
	t.print.generation = after
	return true
}

// asLeft says whether the table is as Install left it: if nobody has changed any table since, or
// it looks as it did. How it looks in every detail is not known after a step, until know reads it.
func (t *Table) asLeft() (bool, error) {
	now, err := generation()
	if err != nil {
		return false, err
	}
	if now == t.print.generation {
		return true, nil
	}
	t.looks++
	is, has, err := look(t.table.Name, kept(t.installed))
	switch {
	case errors.Is(err, os.ErrNotExist): // the table is gone
		t.losses++
		return false, nil
	case err != nil, is.generation == 0: // it was changed all the time
		return false, err
	case !t.print.seen(): // since a step: it is compared with what the kernel was sent
		if !t.installed.is(has) {
			t.losses++
		}
		return false, nil
	case is.sum != t.print.sum:
		t.losses++
		return false, nil
	}
	t.print.generation = is.generation
	return true, nil
}

// own notes a transaction of ours. If it was not the only one, the number is found to be wrong.
func (f *fingerprint) own() {
	if f.generation != 0 {
		f.generation++
	}
}

// change sends a difference, in one transaction. What is in use can't be removed: elements
// and rules go before the chains, sets and counters that they name, and come after them.
func (t *Table) change(d *difference) error {
	c, err := connection()
	if err != nil {
		return err
	}
	for _, s := range d.elementsGone {
		if err := t.sendElements(s, s.elements, c.SetDeleteElements); err != nil {
			return err
		}
	}
	for _, ch := range slices.Concat(d.chainsGone, d.chainsChanged) {
		c.FlushChain(&nftables.Chain{Table: t.table, Name: ch.name})
	}
	for _, ch := range d.chainsGone {
		c.DelChain(&nftables.Chain{Table: t.table, Name: ch.name})
	}
	gone := map[string]bool{}
	for _, s := range d.setsGone {
		gone[s.Name] = true
		c.DelSet(&nftables.Set{Table: t.table, Name: s.Name})
	}
	for _, name := range d.countersGone {
		c.DeleteObject(&nftables.CounterObj{Table: t.table, Name: name})
	}
	for _, name := range d.countersNew {
		c.AddObj(&nftables.CounterObj{Table: t.table, Name: name})
	}
	if d.timeoutsGone.Name != "" {
		objects.RemoveTimeouts(c, t.table, d.timeoutsGone.Name)
	}
	if d.timeoutsNew.Name != "" {
		d.timeoutsNew.Add(c, t.table)
	}
	for _, ch := range d.chainsNew {
		t.addChain(c, ch)
	}
	for i, s := range d.setsNew {
		if err := t.addSet(c, s, uint32(i+1), &present{sets: gone}); err != nil {
			return err
		}
	}
	for _, s := range d.elementsNew {
		if err := t.sendElements(s, s.elements, c.SetAddElements); err != nil {
			return err
		}
	}
	for _, ch := range slices.Concat(d.chainsNew, d.chainsChanged) {
		t.addRules(c, ch)
	}
	return c.Flush()
}

// elementsOf is how many elements one message can have: an attribute has at most 64 KiB.
const elementsOf = 400

// sendElements has a set of the table be told of elements, in as many messages as they need.
func (t *Table) sendElements(s *set, elements []nftables.SetElement, send func(*nftables.Set, []nftables.SetElement) error) error {
	of := s.Set
	of.Table = t.table
	for some := range slices.Chunk(elements, elementsOf) {
		if err := send(&of, some); err != nil {
			return fmt.Errorf("firewall: set %s: %w", s.Name, err)
		}
	}
	return nil
}

func (t *Table) addRules(c *nftables.Conn, ch *chain) {
	for _, r := range ch.rules {
		c.AddRule(&nftables.Rule{Table: t.table, Chain: &nftables.Chain{Name: ch.name}, Exprs: []expr.Any(r)})
	}
}
