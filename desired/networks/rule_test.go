// SPDX-License-Identifier: Apache-2.0

package networks

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func TestParseRule(t *testing.T) {
	t.Parallel()
	prefix := netip.MustParsePrefix
	for text, want := range map[string]Rule{
		"10.0.0.0/8":       {Prefix: prefix("10.0.0.0/8")},
		"10.1.2.3":         {Prefix: prefix("10.1.2.3/32")},
		"10.1.2.3:443":     {Prefix: prefix("10.1.2.3/32"), Port: 443},
		"10.1.2.3/32:443":  {Prefix: prefix("10.1.2.3/32"), Port: 443},
		"fd00::/8":         {Prefix: prefix("fd00::/8")},
		"[fd00::/8]:53":    {Prefix: prefix("fd00::/8"), Port: 53},
		"[fd00::1]:53":     {Prefix: prefix("fd00::1/128"), Port: 53},
		"::/0":             {Prefix: prefix("::/0")},
		"0.0.0.0/0:25":     {Prefix: prefix("0.0.0.0/0"), Port: 25},
		"example.org":      {Host: "example.org"},
		"Example.ORG.:443": {Host: "example.org", Port: 443},
		"sandbox:db":       {Sandbox: "db"},
		"sandbox:db:5432":  {Sandbox: "db", Port: 5432},
		"host:5432":        {TheHost: true, Port: 5432},
	} {
		got, err := ParseRule(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; expected %+v", text, got, err, want)
		}
		if again, err := ParseRule(got.String()); err != nil || again != got {
			t.Errorf("%s is written as %s, which is %+v, %v", text, got, again, err)
		}
	}
	for text, want := range map[string]string{
		"":                                "expected a prefix",
		"10.1.2.3/8":                      "did you mean 10.0.0.0/8, or 10.1.2.3/32?",
		"10.0.0.0/33":                     "expected a prefix",
		"10.0.0.0/8:0":                    "expected a port",
		"10.0.0.0/8:070":                  "expected a port",
		"10.0.0.0/8:https":                "expected a port",
		"::ffff:10.0.0.1":                 "expected an IPv4 prefix",
		"fe80::1%eth0":                    "expected a prefix",
		"[fd00::/8]53":                    "expected a prefix",
		"[fd00::/8":                       "expected a prefix",
		"[fd00::/8]:":                     "expected a prefix",
		"host":                            "expected a port of the host",
		"host:":                           "expected a port from",
		"host:65536":                      "expected a port from",
		"sandbox:":                        "expected the name of a sandbox",
		"sandbox:DB":                      "expected the name of a sandbox",
		"sandbox:db:http":                 "expected a port",
		"db":                              "sandbox:db",
		"*.example.org":                   "given in full",
		"-a.example.org":                  "no DNS name",
		"a..example.org":                  "no DNS name",
		"example.org:443:1":               "expected a port",
		"http://example.org":              "expected a",
		strings.Repeat("a.", 127) + "org": "at most 253",
	} {
		if r, err := ParseRule(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; expected an error with %q", text, r, err, want)
		}
	}
}

func TestFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		port  Port
		first uint16
		count int
	}{
		{Port{ContainerPort: 80}, 80, 1},
		{Port{Range: "6000-6010"}, 6000, 11},
		{Port{Range: "1-65535"}, 1, 65535},
		{Port{Range: "6010-6000"}, 0, 0},
		{Port{Range: "0-5"}, 0, 0},
		{Port{Range: "-"}, 0, 0},
	} {
		if first, count := c.port.First(); first != c.first || count != c.count {
			t.Errorf("%+v: %d, %d", c.port, first, count)
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{`"10.0.0.1"`: 1, `["10.0.0.1", "fd00::1"]`: 2, `[]`: 0} {
		var a Addresses
		if err := json.Unmarshal([]byte(text), &a); err != nil || len(a.Addrs()) != want {
			t.Errorf("%s: %v, %v", text, a, err)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "[fd00::/8]:53", "sandbox:db:1", "host:1", "example.org:443", "0.0.0.0."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRule(text)
		if err != nil {
			return
		}
		if again, err := ParseRule(r.String()); err != nil || again != r {
			t.Fatalf("%q: %+v, then %+v, %v", text, r, again, err)
		}
	})
}
