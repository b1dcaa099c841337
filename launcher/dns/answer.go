// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"sandboxctl.dev/launcher/names"
)

// ttl is how long, in seconds, an answer about a sandbox may be kept: a sandbox that comes
// back may have another address, and one that did not exist may exist now.
const ttl = 5

// maxAnswers is how many addresses one answer has at most.
const maxAnswers = 1000

// reply is an answer of our own.
type reply struct {
	code      dnsmessage.RCode
	addresses []netip.Addr
	pointer   string
	// zone is whose SOA record says how long a negative answer holds; "" leaves it out.
	zone      string
	truncated bool
}

// local answers what is not for others to answer; nil is a question for a server.
func local(d *names.Directory, c *names.Sandbox, q *query) []byte {
	switch {
	case q.RCode == badVersion:
		return q.fails(badVersion)
	case q.question.Class != dnsmessage.ClassINET, q.question.Type == dnsmessage.TypeAXFR, q.question.Type == typeIXFR:
		return q.fails(dnsmessage.RCodeRefused)
	}
	if a, ok := fromArpa(q.name); ok {
		if name, ours := d.Reverse(c, a); ours {
			return q.pointer(name)
		}
	}
	f := d.Lookup(c, q.name)
	switch {
	case f.Known:
		return q.reply(reply{addresses: q.family(f.Addresses), zone: f.Zone})
	case f.Zone != "":
		return q.reply(reply{code: dnsmessage.RCodeNameError, zone: f.Zone})
	case q.name != "" && !strings.Contains(q.name, ".") && q.asksAddress():
		// The name of a sandbox that is not there now, most likely: nobody outside is told
		// of it. Without an SOA record it is not remembered.
		return q.fails(dnsmessage.RCodeNameError)
	case !mayAsk(c, q.name):
		return q.fails(dnsmessage.RCodeNameError)
	}
	return nil
}

// mayAsk says whether a sandbox may ask others for a name.
func mayAsk(c *names.Sandbox, name string) bool {
	if !leadsOut(c) {
		return false
	}
	return !c.Outside.Closed || ruleName(c, name)
}

// leadsOut says whether a sandbox reaches more than its networks. If not, a question that
// is passed on would be a way out.
func leadsOut(c *names.Sandbox) bool {
	for i := range c.Attachments {
		if !c.Attachments[i].Internal {
			return true
		}
	}
	return false
}

func (q *query) asksAddress() bool {
	return q.question.Type == dnsmessage.TypeA || q.question.Type == dnsmessage.TypeAAAA
}

// family are the addresses that the question is about, in random order: the members of a
// set share the load.
func (q *query) family(all []netip.Addr) (out []netip.Addr) {
	for _, a := range all {
		switch q.question.Type {
		case dnsmessage.TypeA:
			if a.Is4() {
				out = append(out, a)
			}
		case dnsmessage.TypeAAAA:
			if a.Is6() {
				out = append(out, a)
			}
		case dnsmessage.TypeALL:
			out = append(out, a)
		default: // a name of a sandbox has nothing else
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(len(out), maxAnswers)]
}

// pointer answers with the name of an address of ours.
func (q *query) pointer(name string) []byte {
	r := reply{zone: q.name}
	switch {
	case name == "":
		r.code = dnsmessage.RCodeNameError
	case q.question.Type == dnsmessage.TypePTR || q.question.Type == dnsmessage.TypeALL:
		r.pointer = name
	}
	return q.reply(r)
}

// reply builds an answer, without the addresses that the client has no room for.
func (q *query) reply(r reply) []byte {
	msg, err := q.build(r)
	if err == nil && len(msg) > q.size {
		// A pointer to the name and 10 bytes come before each address.
		each := 12 + 4
		if q.question.Type == dnsmessage.TypeAAAA {
			each = 12 + 16
		}
		over := (len(msg) - q.size + each - 1) / each
		r.truncated = true
		r.addresses = r.addresses[:max(len(r.addresses)-over, 0)]
		msg, err = q.build(r)
	}
	if err != nil || len(msg) > q.size {
		return q.bare(dnsmessage.RCodeServerFailure)
	}
	return msg
}

func (q *query) build(r reply) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: q.ID, Response: true, Authoritative: r.zone != "", Truncated: r.truncated,
		RecursionDesired: q.RecursionDesired, RecursionAvailable: true, CheckingDisabled: q.CheckingDisabled, RCode: r.code & 0xf,
	})
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q.question); err != nil {
		return nil, err
	}
	if err := b.StartAnswers(); err != nil {
		return nil, err
	}
	h := dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: ttl}
	for _, a := range r.addresses {
		if err := addAddress(&b, h, a); err != nil {
			return nil, err
		}
	}
	if r.pointer != "" {
		ptr, err := dnsmessage.NewName(r.pointer + ".")
		if err != nil {
			return nil, err
		}
		if err := b.PTRResource(h, dnsmessage.PTRResource{PTR: ptr}); err != nil {
			return nil, err
		}
	}
	if len(r.addresses) == 0 && r.pointer == "" && r.zone != "" && !r.truncated {
		if err := addSOA(&b, r.zone); err != nil {
			return nil, err
		}
	}
	if err := q.addOPT(&b, mostUDP, r.code); err != nil {
		return nil, err
	}
	return b.Finish()
}

func addAddress(b *dnsmessage.Builder, h dnsmessage.ResourceHeader, a netip.Addr) error {
	if a.Is4() {
		return b.AResource(h, dnsmessage.AResource{A: a.As4()})
	}
	return b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: a.As16()})
}

// addSOA says that a zone has not what was asked for, and for how long that holds.
func addSOA(b *dnsmessage.Builder, zone string) error {
	owner, err := dnsmessage.NewName(zone + ".")
	if err != nil {
		return err
	}
	ns, err := dnsmessage.NewName("ns." + names.Domain + ".")
	if err != nil {
		return err
	}
	mbox, err := dnsmessage.NewName("hostmaster." + names.Domain + ".")
	if err != nil {
		return err
	}
	if err := b.StartAuthorities(); err != nil {
		return err
	}
	return b.SOAResource(dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: ttl},
		dnsmessage.SOAResource{NS: ns, MBox: mbox, Serial: 1, Refresh: 60, Retry: 60, Expire: 60, MinTTL: ttl})
}

// fromArpa is the address that a name for reverse lookups is about.
func fromArpa(name string) (netip.Addr, bool) {
	if v4, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(v4, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		var b [4]byte
		for i, p := range parts {
			n, err := strconv.ParseUint(p, 10, 8)
			if err != nil || strconv.FormatUint(n, 10) != p {
				return netip.Addr{}, false
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	v6, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(v6) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		n, err := strconv.ParseUint(v6[2*i:2*i+1], 16, 8)
		if err != nil || i < 31 && v6[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
