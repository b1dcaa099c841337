// SPDX-License-Identifier: Apache-2.0

package public

import (
	"net/netip"
	"testing"
)

func TestPrefixes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ overlaps, none bool }{
		"1.1.1.1/32":            {false, false},
		"8.0.0.0/6":             {true, false},
		"8.0.0.0/7":             {false, false},
		"10.0.0.0/8":            {true, true},
		"10.1.0.0/16":           {true, true},
		"0.0.0.0/0":             {true, false},
		"2606:4700::/32":        {false, false},
		"::/0":                  {true, false},
		"64:ff9b::/96":          {true, false},
		"64:ff9b::10.1.2.3/128": {true, true},
		"64:ff9b::1.1.1.1/128":  {false, false},
		"::ffff:1.1.1.1/128":    {true, true},
		"fd00:ec2::254/128":     {true, true},
	} {
		p := netip.MustParsePrefix(text)
		if Overlaps(p) != want.overlaps || None(p) != want.none {
			t.Errorf("%s: overlaps %v, none %v", p, Overlaps(p), None(p))
		}
		if p.IsSingleIP() && Is(p.Addr()) == want.overlaps {
			t.Errorf("%s: %v", p, Is(p.Addr()))
		}
	}
	if Is(netip.Addr{}) {
		t.Error("the zero address")
	}
}
