// SPDX-License-Identifier: Apache-2.0

package contention

import (
	"maps"
	"net/netip"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
)

// A subnet into which a route of the host leads is found before the sandboxes of the network are
// stopped for it. The host is looked at only if a network is to have another subnet.
func TestLed(t *testing.T) {
	t.Parallel()
	document := func(spec string) *desired.Snapshot {
		docs, ps := desired.Decode("n.yaml", []byte("apiVersion: "+desired.APIVersion+"\nkind: Network\nmetadata: {name: back}\nspec: "+spec+"\n"))
		if len(ps) > 0 {
			t.Fatal(ps)
		}
		return &desired.Snapshot{Complete: true, Objects: desired.Objects{{Object: docs[0].Object, Declared: desired.Declared{Network: docs[0].Network}}}}
	}
	on := func(name, network, subnet4, subnet6 string) actual.Observed {
		return actual.Observed{Record: &actual.Record{Name: name, Attachments: []actual.Attachment{
			{Network: network, Subnet4: netip.MustParsePrefix(subnet4), Subnet6: netip.MustParsePrefix(subnet6)},
		}}}
	}
	before := on("web", "back", "10.45.0.0/24", "fd45::/64")
	routes := []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("10.48.1.7/32"),
		netip.MustParsePrefix("10.48.0.0/16"), netip.MustParsePrefix("fd48::/32"),
	}
	for _, c := range []struct {
		what, spec string
		have       []actual.Observed
		want       map[string]string
		looks      bool
	}{
		{"nobody is on it", "{subnet: 10.48.1.0/24}", nil, nil, false},
		{"another network", "{subnet: 10.48.1.0/24}", []actual.Observed{on("web", "front", "10.45.0.0/24", "fd45::/64")}, nil, false},
		{"no subnet is said", "{mtu: 1400}", []actual.Observed{before}, nil, false},
		{"the one that it has", "{subnet: 10.45.0.0/24, subnet6: 'fd45::/64'}", []actual.Observed{before}, nil, false},
		{"one that another sandbox has by now", "{subnet: 10.48.1.0/24}", []actual.Observed{on("db", "back", "10.48.1.0/24", "fd45::/64"), before}, nil, false},
		{"a route around it", "{subnet: 10.48.1.0/24}", []actual.Observed{before}, map[string]string{"10.48.1.0/24": "10.48.0.0/16"}, true},
		{"a route in it", "{subnet: 10.32.0.0/11}", []actual.Observed{before}, map[string]string{"10.32.0.0/11": "10.48.0.0/16"}, true},
		{"of IPv6", "{subnet6: 'fd48::/64'}", []actual.Observed{before}, map[string]string{"fd48::/64": "fd48::/32"}, true},
		{"a default route alone", "{subnet: 10.49.1.0/24}", []actual.Observed{before}, nil, true},
	} {
		looks := 0
		want := document(c.spec)
		led := Led(want, c.have, func() []netip.Prefix { looks++; return routes })
		if !maps.Equal(led, c.want) || (looks == 1) != c.looks || looks > 1 {
			t.Errorf("%s: %v after %d looks, expected %v", c.what, led, looks, c.want)
		}
		e := manifest("web", networks.Network{Join: []string{"back"}})
		reason, why := Subnets(e, want, c.have, led)
		if (reason == actual.ReasonAddressUnusable) != (len(c.want) > 0) || reason != "" && !strings.Contains(why, "of the host leads; it starts when that has changed") {
			t.Errorf("%s: %s %s", c.what, reason, why)
		}
	}
}
