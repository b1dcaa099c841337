// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sandboxctl.dev/desired/networks/public"
	"sandboxctl.dev/launcher/names"
)

const (
	// leastHold is how long an address stands for a name at least: a program may take a
	// while between the answer and its connection.
	leastHold = time.Minute
	// mostHold is how long an answer is believed at most, whatever its TTL.
	mostHold = 24 * time.Hour
	// maxLearned is how many addresses one answer can let through.
	maxLearned = 64
	// maxRecords is how many records of an answer are looked at.
	maxRecords = 512
)

// ruleName says whether an egress rule of a sandbox is about a name.
func ruleName(c *names.Sandbox, name string) bool {
	return slices.ContainsFunc(c.Outside.Names, func(n string) bool { return strings.EqualFold(n, name) })
}

// meaning reads what addresses an answer gives to the name of its question, directly or by
// a chain of CNAME records, and how long that holds. Addresses of other names in it are
// nobody's business, and those that are not public are left out: the owner of a name could
// let through what is private to the host by pointing the name there. private says
// that there were such.
func meaning(q *query, msg []byte) (out []netip.Addr, hold time.Duration, private bool) {
	var p dnsmessage.Parser
	if h, err := p.Start(msg); err != nil || h.RCode != dnsmessage.RCodeSuccess || !q.asksAddress() {
		return nil, 0, false
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, 0, false
	}
	least := uint32(mostHold / time.Second)
	at := q.name
	var addresses []dnsmessage.Resource
	chain := map[string]link{}
	for range maxRecords {
		r, err := p.Answer()
		if err != nil {
			break
		}
		if c, ok := r.Body.(*dnsmessage.CNAMEResource); ok {
			chain[fold(r.Header.Name)] = link{fold(c.CNAME), r.Header.TTL}
		} else if r.Header.Class == dnsmessage.ClassINET {
			addresses = append(addresses, r)
		}
	}
	for next, ok := chain[at]; ok; next, ok = chain[at] {
		delete(chain, at) // a circle ends
		at, least = next.to, min(least, next.ttl)
	}
	for i := range addresses {
		r := &addresses[i]
		if fold(r.Header.Name) != at || len(out) == maxLearned {
			continue
		}
		var a netip.Addr
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			a = netip.AddrFrom4(body.A)
		case *dnsmessage.AAAAResource:
			a = netip.AddrFrom16(body.AAAA)
		}
		switch {
		case !a.IsValid():
		case !public.Is(a):
			private = true
		case !slices.Contains(out, a):
			out, least = append(out, a), min(least, r.Header.TTL)
		}
	}
	return out, max(time.Duration(least)*time.Second, leastHold), private
}

// link is a CNAME record.
type link struct {
	to  string
	ttl uint32
}
