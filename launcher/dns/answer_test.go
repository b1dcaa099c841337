// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sandboxctl.dev/launcher/names"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// town has a client on a network with a sibling of both families, one that has IPv4 alone,
// and a set of n members.
func town(n int) *names.Directory {
	at := func(four, six string) []names.Attachment {
		a := names.Attachment{
			Network: "front", Address4: addr(four), Gateway4: addr("10.0.0.1"), Gateway6: addr("fd00::1"),
			Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd00::/64")},
		}
		if six != "" {
			a.Address6 = addr(six)
		}
		return []names.Attachment{a}
	}
	closed := at("10.0.0.7", "")
	internal := at("10.0.0.8", "")
	internal[0].Internal = true
	all := []names.Sandbox{
		{Name: "web", Attachments: at("10.0.0.5", "fd00::5"), Outside: names.Outside{Names: []string{"example.org"}}},
		{Name: "db", Attachments: at("10.0.0.6", "")},
		{Name: "closed", Attachments: closed, Outside: names.Outside{Closed: true, Names: []string{"example.org"}}},
		{Name: "inside", Attachments: internal},
	}
	for i := range n {
		all = append(all, names.Sandbox{Name: fmt.Sprint("w-", i), Sets: []string{"workers"}, Attachments: at(fmt.Sprintf("10.0.%d.%d", 1+i/200, 1+i%200), fmt.Sprintf("fd00::1:%x", i))})
	}
	return names.New(all)
}

func name(s string) dnsmessage.Name { return dnsmessage.MustNewName(s) }

// pack makes a question as a client would; size is that of EDNS, 0 for none.
func pack(t testing.TB, of string, typ dnsmessage.Type, size int) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name(of), Type: typ, Class: dnsmessage.ClassINET}},
	}
	if size > 0 {
		m.Additionals = []dnsmessage.Resource{opt(t, size, 0)}
	}
	return packed(t, m)
}

func opt(t testing.TB, size int, version uint32) dnsmessage.Resource {
	t.Helper()
	var h dnsmessage.ResourceHeader
	if err := h.SetEDNS0(size, 0, false); err != nil {
		t.Fatal(err)
	}
	h.TTL |= version << 16
	return dnsmessage.Resource{Header: h, Body: &dnsmessage.OPTResource{}}
}

func packed(t testing.TB, m dnsmessage.Message) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unpack(t testing.TB, b []byte) (m dnsmessage.Message) {
	t.Helper()
	if err := m.Unpack(b); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return m
}

// said is an answer as text: code, then addresses and names in order, then the zone of its SOA.
func said(m dnsmessage.Message) string {
	out := []string{m.RCode.String()[len("RCode"):]}
	var all []string
	for _, r := range m.Answers {
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			all = append(all, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			all = append(all, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.PTRResource:
			all = append(all, b.PTR.String())
		}
	}
	slices.Sort(all)
	out = append(out, all...)
	for _, r := range m.Authorities {
		out = append(out, "soa "+r.Header.Name.String())
	}
	return strings.Join(out, " ")
}

func TestLocal(t *testing.T) {
	t.Parallel()
	d := town(2)
	const forwarded = "forwarded"
	for _, c := range []struct {
		client, name string
		typ          dnsmessage.Type
		want         string
	}{
		{"10.0.0.5", "db.", dnsmessage.TypeA, "Success 10.0.0.6"},
		{"10.0.0.5", "DB.Front.Internal.", dnsmessage.TypeA, "Success 10.0.0.6"},
		{"10.0.0.5", "db.", dnsmessage.TypeAAAA, "Success soa db."},
		{"10.0.0.5", "db.front.", dnsmessage.TypeAAAA, "Success soa front."},
		{"10.0.0.5", "db.front.internal.", dnsmessage.TypeAAAA, "Success soa front.internal."},
		{"10.0.0.5", "db.front.internal.", dnsmessage.TypeMX, "Success soa front.internal."},
		{"10.0.0.5", "front.internal.", dnsmessage.TypeA, "Success soa front.internal."},
		{"10.0.0.5", "nobody.front.internal.", dnsmessage.TypeA, "NameError soa front.internal."},
		{"10.0.0.5", "workers.", dnsmessage.TypeA, "Success 10.0.1.1 10.0.1.2"},
		{"10.0.0.5", "workers.front.", dnsmessage.TypeAAAA, "Success fd00::1:0 fd00::1:1"},
		{"fd00::5", "web.", dnsmessage.TypeALL, "Success 10.0.0.5 fd00::5"},
		// The name of a sandbox that is not there is not told to others.
		{"10.0.0.5", "stopped.", dnsmessage.TypeA, "NameError"},
		{"10.0.0.5", "stopped.", dnsmessage.TypeAAAA, "NameError"},
		{"10.0.0.5", "org.", dnsmessage.TypeNS, forwarded},
		{"10.0.0.5", ".", dnsmessage.TypeA, forwarded},
		{"10.0.0.5", "example.org.", dnsmessage.TypeA, forwarded},
		{"10.0.0.5", "metadata.google.internal.", dnsmessage.TypeA, forwarded},
		{"10.0.0.5", "6.0.0.10.in-addr.arpa.", dnsmessage.TypePTR, "Success db.front.internal."},
		{"10.0.0.5", "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dnsmessage.TypePTR, "Success web.front.internal."},
		{"10.0.0.5", "6.0.0.10.in-addr.arpa.", dnsmessage.TypeA, "Success soa 6.0.0.10.in-addr.arpa."},
		{"10.0.0.5", "99.0.0.10.in-addr.arpa.", dnsmessage.TypePTR, "NameError soa 99.0.0.10.in-addr.arpa."},
		{"10.0.0.5", "9.9.9.9.in-addr.arpa.", dnsmessage.TypePTR, forwarded},
		{"10.0.0.5", "09.9.9.9.in-addr.arpa.", dnsmessage.TypePTR, forwarded},
		{"10.0.0.5", "example.org.", dnsmessage.TypeAXFR, "Refused"},
		// Who may not reach others may not ask them either: a question is a message.
		{"10.0.0.7", "example.org.", dnsmessage.TypeA, forwarded},
		{"10.0.0.7", "EXAMPLE.org.", dnsmessage.TypeAAAA, forwarded},
		{"10.0.0.7", "secret.example.org.", dnsmessage.TypeA, "NameError"},
		{"10.0.0.7", "org.", dnsmessage.TypeNS, "NameError"},
		{"10.0.0.7", "9.9.9.9.in-addr.arpa.", dnsmessage.TypePTR, "NameError"},
		{"10.0.0.7", "db.", dnsmessage.TypeA, "Success 10.0.0.6"},
		{"10.0.0.8", "example.org.", dnsmessage.TypeA, "NameError"},
		{"10.0.0.8", "db.front.internal.", dnsmessage.TypeA, "Success 10.0.0.6"},
	} {
		q, msg := parse(pack(t, c.name, c.typ, 0), false)
		if q == nil {
			t.Fatalf("%s: not read, %x", c.name, msg)
		}
		got := forwarded
		if msg := local(d, d.Client(addr(c.client)), q); msg != nil {
			m := unpack(t, msg)
			got = said(m)
			if m.ID != 4711 || !m.Response || !m.RecursionAvailable || !m.RecursionDesired || len(m.Questions) != 1 || m.Questions[0].Name != name(c.name) || len(m.Additionals) != 0 {
				t.Errorf("%s: header %+v, questions %v, additionals %v", c.name, m.Header, m.Questions, m.Additionals)
			}
			for _, r := range slices.Concat(m.Answers, m.Authorities) {
				if r.Header.TTL != ttl {
					t.Errorf("%s: TTL %d", c.name, r.Header.TTL)
				}
			}
		}
		if got != c.want {
			t.Errorf("%s asks for %s %v: %s; expected %s", c.client, c.name, c.typ, got, c.want)
		}
	}
}

// What can't be answered is told so, or nothing; never anything that makes a loop.
func TestParse(t *testing.T) {
	t.Parallel()
	question := dnsmessage.Question{Name: name("db."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	for what, c := range map[string]struct {
		msg  []byte
		want string
	}{
		"nothing":        {nil, "silence"},
		"half a header":  {make([]byte, 11), "silence"},
		"an answer":      {packed(t, dnsmessage.Message{Header: dnsmessage.Header{Response: true}, Questions: []dnsmessage.Question{question}}), "silence"},
		"no question":    {packed(t, dnsmessage.Message{}), "FormatError"},
		"two questions":  {packed(t, dnsmessage.Message{Questions: []dnsmessage.Question{question, question}}), "FormatError"},
		"an update":      {packed(t, dnsmessage.Message{Header: dnsmessage.Header{OpCode: 5}, Questions: []dnsmessage.Question{question}}), "NotImplemented"},
		"cut":            {pack(t, "db.", dnsmessage.TypeA, 0)[:14], "FormatError"},
		"cut OPT":        {pack(t, "db.", dnsmessage.TypeA, 512)[:25], "FormatError"},
		"two OPT":        {packed(t, dnsmessage.Message{Questions: []dnsmessage.Question{question}, Additionals: []dnsmessage.Resource{opt(t, 512, 0), opt(t, 512, 0)}}), "FormatError"},
		"a pointer loop": {append(pack(t, ".", dnsmessage.TypeA, 0)[:12], 0xc0, 12, 0, 1, 0, 1), "FormatError"},
	} {
		q, msg := parse(c.msg, false)
		got := "silence"
		if msg != nil {
			got = said(unpack(t, msg))
		}
		if q != nil || got != c.want {
			t.Errorf("%s: %+v, %s; expected %s", what, q, got, c.want)
		}
	}
	q, _ := parse(packed(t, dnsmessage.Message{Questions: []dnsmessage.Question{question}, Additionals: []dnsmessage.Resource{opt(t, 512, 1)}}), false)
	d := town(0)
	m := unpack(t, local(d, d.Client(addr("10.0.0.5")), q))
	if len(m.Additionals) != 1 || m.Additionals[0].Header.ExtendedRCode(m.RCode) != badVersion {
		t.Errorf("EDNS version 1: %+v", m)
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	d := town(500)
	c := d.Client(addr("10.0.0.5"))
	for _, x := range []struct {
		edns        int
		tcp         bool
		least, most int
		truncated   bool
	}{
		{0, false, 25, plainUDP, true},
		{100, false, 25, plainUDP, true},
		{1232, false, 70, mostUDP, true},
		{65535, false, 70, mostUDP, true},
		{0, true, 500, maxTCP, false},
	} {
		for _, typ := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
			q, _ := parse(pack(t, "workers.", typ, x.edns), x.tcp)
			b := local(d, c, q)
			m := unpack(t, b)
			least := x.least
			if typ == dnsmessage.TypeAAAA && x.truncated {
				least /= 2
			}
			if len(b) > x.most || len(m.Answers) < least || m.Truncated != x.truncated || (len(m.Additionals) == 1) != (x.edns > 0) {
				t.Errorf("size %d, tcp %t, %v: %d bytes, %d answers, truncated %t, %d additionals", x.edns, x.tcp, typ, len(b), len(m.Answers), m.Truncated, len(m.Additionals))
			}
		}
	}
}

func TestMeaning(t *testing.T) {
	t.Parallel()
	h := func(of string, ttl uint32) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name(of), Class: dnsmessage.ClassINET, TTL: ttl}
	}
	a := func(of, to string, ttl uint32) dnsmessage.Resource {
		if x := addr(to); x.Is6() {
			return dnsmessage.Resource{Header: h(of, ttl), Body: &dnsmessage.AAAAResource{AAAA: x.As16()}}
		}
		return dnsmessage.Resource{Header: h(of, ttl), Body: &dnsmessage.AResource{A: addr(to).As4()}}
	}
	cname := func(of, to string, ttl uint32) dnsmessage.Resource {
		return dnsmessage.Resource{Header: h(of, ttl), Body: &dnsmessage.CNAMEResource{CNAME: name(to)}}
	}
	for what, c := range map[string]struct {
		answers []dnsmessage.Resource
		want    string
		hold    time.Duration
		private bool
	}{
		"addresses":       {[]dnsmessage.Resource{a("example.org.", "9.9.9.9", 300), a("example.org.", "9.9.9.10", 200), a("example.org.", "9.9.9.9", 300)}, "9.9.9.9 9.9.9.10", 200 * time.Second, false},
		"other case":      {[]dnsmessage.Resource{a("Example.ORG.", "9.9.9.9", 300)}, "9.9.9.9", 300 * time.Second, false},
		"a chain":         {[]dnsmessage.Resource{cname("example.org.", "a.net.", 120), a("b.net.", "9.9.9.9", 300), cname("a.net.", "b.net.", 600)}, "9.9.9.9", 120 * time.Second, false},
		"a circle":        {[]dnsmessage.Resource{cname("example.org.", "a.net.", 120), cname("a.net.", "example.org.", 120)}, "", 120 * time.Second, false},
		"another name":    {[]dnsmessage.Resource{a("evil.org.", "9.9.9.9", 300)}, "", mostHold, false},
		"short":           {[]dnsmessage.Resource{a("example.org.", "9.9.9.9", 0)}, "9.9.9.9", leastHold, false},
		"long":            {[]dnsmessage.Resource{a("example.org.", "9.9.9.9", 1<<31)}, "9.9.9.9", mostHold, false},
		"private":         {[]dnsmessage.Resource{a("example.org.", "10.0.0.1", 300), a("example.org.", "9.9.9.9", 300)}, "9.9.9.9", 300 * time.Second, true},
		"metadata":        {[]dnsmessage.Resource{a("example.org.", "169.254.169.254", 300)}, "", mostHold, true},
		"loopback":        {[]dnsmessage.Resource{a("example.org.", "127.0.0.1", 300)}, "", mostHold, true},
		"unspecified":     {[]dnsmessage.Resource{a("example.org.", "0.0.0.0", 300), a("example.org.", "::", 300)}, "", mostHold, true},
		"mapped":          {[]dnsmessage.Resource{a("example.org.", "::ffff:9.9.9.9", 300)}, "", mostHold, true},
		"NAT64":           {[]dnsmessage.Resource{a("example.org.", "64:ff9b::a00:1", 300)}, "", mostHold, true},
		"6to4":            {[]dnsmessage.Resource{a("example.org.", "2002:a00:1::", 300)}, "", mostHold, true},
		"private IPv6":    {[]dnsmessage.Resource{a("example.org.", "fd00::1", 300)}, "", mostHold, true},
		"public IPv6":     {[]dnsmessage.Resource{a("example.org.", "2620:fe::fe", 300)}, "2620:fe::fe", 300 * time.Second, false},
		"nothing":         {nil, "", mostHold, false},
		"more than a set": {many(a, 200), "", mostHold, false},
	} {
		q, _ := parse(pack(t, "example.org.", dnsmessage.TypeA, 0), false)
		msg := packed(t, dnsmessage.Message{Header: dnsmessage.Header{Response: true}, Questions: []dnsmessage.Question{q.question}, Answers: c.answers})
		out, hold, private := meaning(q, msg)
		if what == "more than a set" {
			if len(out) != maxLearned {
				t.Errorf("%s: %d addresses", what, len(out))
			}
			continue
		}
		var text []string
		for _, x := range out {
			text = append(text, x.String())
		}
		if got := strings.Join(text, " "); got != c.want || hold != c.hold || private != c.private {
			t.Errorf("%s: %s for %v, private %t; expected %s for %v, private %t", what, got, hold, private, c.want, c.hold, c.private)
		}
	}
}

func many(a func(of, to string, ttl uint32) dnsmessage.Resource, n int) (out []dnsmessage.Resource) {
	for i := range n {
		out = append(out, a("example.org.", fmt.Sprintf("9.9.9.%d", i), 300))
	}
	return out
}

// FuzzQuestion is all that a message of a guest, or of a server, is given to.
func FuzzQuestion(f *testing.F) {
	d := town(3)
	c := d.Client(addr("10.0.0.5"))
	f.Add(pack(f, "db.", dnsmessage.TypeA, 0), true)
	f.Add(pack(f, "6.0.0.10.in-addr.arpa.", dnsmessage.TypePTR, 1232), false)
	f.Add(pack(f, "workers.front.internal.", dnsmessage.TypeAAAA, 512), false)
	f.Add(pack(f, "example.org.", dnsmessage.TypeA, 65535), false)
	f.Fuzz(func(t *testing.T, msg []byte, tcp bool) {
		q, answer := parse(msg, tcp)
		if q == nil {
			if answer != nil && len(answer) != 12 {
				t.Fatalf("refused with %x", answer)
			}
			return
		}
		if answer = local(d, c, q); answer == nil {
			out, err := q.ask(1, q.size)
			if err != nil {
				t.Fatalf("a question that was read can't be asked: %v", err)
			}
			if again, _ := parse(out[2:], false); again == nil || again.question != q.question {
				t.Fatalf("asked %+v instead of %+v", again, q.question)
			}
			// The same bytes as an answer.
			msg = slices.Clone(msg)
			msg[2] |= 0x80
			if _, ok := q.answers(msg, q.ID); ok {
				meaning(q, msg)
				answer = q.fit(msg)
			}
		}
		if len(answer) > q.size {
			t.Fatalf("an answer of %d bytes, the client takes %d", len(answer), q.size)
		}
	})
}
