// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
)

// memory is what was learned of names, by set, and until when: the kernel forgets it if
// somebody removes the table. It has no more than the kernel would take.
type memory map[string]map[netip.Addr]time.Time

// forget drops what no rule is about any more.
func (m memory) forget(names map[[2]string]bool) {
	sets := map[string]bool{}
	for n := range names {
		for _, f := range families {
			sets[learnedSet(n[0], n[1], f)] = true
		}
	}
	maps.DeleteFunc(m, func(set string, _ map[netip.Addr]time.Time) bool { return !sets[set] })
}

// elements are those of a set that have not ended.
func (m memory) elements(set string, now time.Time) (out []nftables.SetElement) {
	for a, until := range m[set] {
		if left := until.Sub(now); left > 0 {
			out = append(out, nftables.SetElement{Key: a.AsSlice(), Timeout: left})
		}
	}
	return out
}

// Bounds of how long an address is allowed after its name was asked for. Answers may be
// valid for no time at all, and the connection comes after the answer.
const (
	learnedShortest = time.Minute
	learnedLongest  = 24 * time.Hour
	// learnedMore is given beside it: who asks for a name again and again does not change the
	// tables of the kernel each time, which all others who change theirs wait for.
	learnedMore = 10 * time.Second
)

// Learn lets a sandbox reach addresses that a name of its rules has, for the time that the
// answer is valid. Of other names nothing is learned. When it returns, a packet to the
// address passes: tell the sandbox the answer only then. Addresses of the host, of links
// and of groups are never learned.
func (t *Table) Learn(sandbox, name string, addrs []netip.Addr, ttl time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.installed == nil || !t.installed.learned[[2]string{sandbox, name}] {
		return nil
	}
	ttl = min(max(ttl, learnedShortest), learnedLongest)
	now := time.Now()
	news := map[string][]netip.Addr{}
	for _, a := range addrs {
		if a = a.Unmap().WithZone(""); !a.IsValid() || holds(neverLearned, a) {
			continue
		}
		set := learnedSet(sandbox, name, of(a))
		if t.learned[set][a].After(now.Add(ttl)) {
			continue // it is let through for as long already
		}
		if t.learned.room(set, a, now) && !slices.Contains(news[set], a) {
			news[set] = append(news[set], a)
		}
	}
	if len(news) == 0 {
		return nil
	}
	ttl += learnedMore
	err := t.ns.Do(func() error { return t.tell(news, ttl) })
	if err != nil {
		return fmt.Errorf("firewall: let %s reach %s: %w", sandbox, name, err)
	}
	t.print.own()
	for set, addrs := range news {
		for _, a := range addrs {
			t.learned[set][a] = now.Add(ttl)
		}
	}
	return nil
}

// room says whether one more address has room in a set. Who answers for a name decides
// how many it has, and must not fill the memory of the host.
func (m memory) room(set string, a netip.Addr, now time.Time) bool {
	if m[set] == nil {
		m[set] = map[netip.Addr]time.Time{}
	}
	if _, there := m[set][a]; there {
		return true
	}
	if len(m[set]) >= learnedMost/2 {
		maps.DeleteFunc(m[set], func(_ netip.Addr, until time.Time) bool { return until.Before(now) })
	}
	if len(m[set]) >= learnedMost/2 {
		return false
	}
	m[set][a] = now
	return true
}

// tell gives sets of the kernel addresses, with a new time for those that they have.
func (t *Table) tell(news map[string][]netip.Addr, ttl time.Duration) error {
	c, err := connection()
	if err != nil {
		return err
	}
	for name, addrs := range news {
		s := &nftables.Set{Table: t.table, Name: name, HasTimeout: true}
		var keys, timed []nftables.SetElement
		for _, a := range addrs {
			keys = append(keys, nftables.SetElement{Key: a.AsSlice()})
			timed = append(timed, nftables.SetElement{Key: a.AsSlice(), Timeout: ttl})
		}
		// Before Linux 6.12 an element that is there keeps its time. Only one that is
		// there can be removed, so it is added first.
		if err := c.SetAddElements(s, keys); err != nil {
			return err
		}
		if err := c.SetDeleteElements(s, keys); err != nil {
			return err
		}
		if err := c.SetAddElements(s, timed); err != nil {
			return err
		}
	}
	return c.Flush()
}
