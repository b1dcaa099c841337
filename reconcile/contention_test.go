// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/reconciletest"
)

// bridged is a sandbox on networks of this program.
func bridged(name string, n networks.Network) *desired.Entry {
	n.Mode = networks.Bridge
	return reconciletest.Entry(name, "a", func(s *desired.Spec) { s.Network = n })
}

func publishing(name string, port uint16) *desired.Entry {
	return bridged(name, networks.Network{Ports: []networks.Port{{ContainerPort: 80, HostPort: port}}})
}

// plugged is a sandbox on a network of CNI that publishes a port.
func plugged(name string, port uint16) *desired.Entry {
	return reconciletest.Entry(name, "a", func(s *desired.Spec) {
		s.Network = networks.Network{Mode: networks.CNI, CNI: networks.CNINames{"lab"}, Ports: []networks.Port{{ContainerPort: 80, HostPort: port}}}
	})
}

// declared adds a Network document to an input.
func withNetwork(t *testing.T, in reconcile.Input, name, spec string) reconcile.Input {
	t.Helper()
	docs, ps := desired.Decode("n.yaml", []byte("apiVersion: "+desired.APIVersion+"\nkind: Network\nmetadata: {name: "+name+"}\nspec: "+spec+"\n"))
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	in.Desired.Objects = append(in.Desired.Objects, desired.Object{Object: docs[0].Object, Declared: docs[0].Declared, Source: docs[0].Position})
	return in
}

// Who has a port of the host or an address keeps it, and the other one waits; nobody waits
// for one that is not going to run, and no two wait for each other.
func TestPlanContention(t *testing.T) {
	t.Parallel()
	a, b := publishing("a", 8080), publishing("b", 8080)
	restarted := reconciletest.Entry("b", "other", func(s *desired.Spec) { s.Network = b.Sandbox.Spec.Network })
	suspended := reconciletest.Entry("b", "a", func(s *desired.Spec) { s.Network, s.Suspend = b.Sandbox.Spec.Network, true })
	done := func(o actual.Observed) actual.Observed {
		o.Record.App().Completed = true
		return o
	}
	older := func(o actual.Observed) actual.Observed {
		o.Record.CreatedAt = now.Add(-2 * time.Hour)
		return o
	}
	static := func(name, network string, addresses ...string) *desired.Entry {
		return bridged(name, networks.Network{Join: []string{network}, Address: addresses})
	}
	under := input(true, []*desired.Entry{a, b})
	under.Operations = map[string]reconcile.Operation{"b": {Op: reconcile.OpCreate}}
	broken := input(true, []*desired.Entry{a})
	broken.Desired.Problems = []desired.Problem{{Position: desired.Position{File: "n.yaml"}, Name: "network/default", Message: "wrong"}}
	// at has a sandbox be on a network.
	at := func(o actual.Observed, network, subnet string, subnet6 ...string) actual.Observed {
		o.Record.Attachments = []actual.Attachment{{Network: network, MTU: 1500, Default: true, Subnet4: netip.MustParsePrefix(subnet)}}
		for _, s := range subnet6 {
			o.Record.Attachments[0].Subnet6 = netip.MustParsePrefix(s)
		}
		return o
	}
	joining := func(name, network string) *desired.Entry {
		return bridged(name, networks.Network{Join: []string{network}})
	}
	suspendedOn := func(name, network string) *desired.Entry {
		return reconciletest.Entry(name, "a", func(s *desired.Spec) {
			s.Network, s.Suspend = networks.Network{Mode: networks.Bridge, Join: []string{network}}, true
		})
	}
	for name, c := range map[string]struct {
		in   reconcile.Input
		want string
		why  string
	}{
		"both new":                   {input(true, []*desired.Entry{a, b}), "create a New; delayed b PortInUse", "port 8080/TCP of the host is published by a, as 8080/TCP"},
		"one is being created":       {under, "delayed a PortInUse", "published by b"},
		"different ports":            {input(true, []*desired.Entry{a, publishing("b", 8081)}), "create a New; create b New", ""},
		"the later name runs":        {input(true, []*desired.Entry{a, b}, running(b)), "delayed a PortInUse", "published by b"},
		"both run":                   {input(true, []*desired.Entry{a, b}, running(a), running(b)), "", ""},
		"one is changed to the port": {input(true, []*desired.Entry{a, b}, running(publishing("b", 8081))), "delayed a PortInUse", "published by b"},
		"one is restarted with it":   {input(true, []*desired.Entry{restarted}, running(b)), "destroy b SpecChanged graceful", ""},
		"it is not stopped for a start that can't come": {input(true, []*desired.Entry{a, restarted}, older(running(a)), running(b)), "delayed b PortInUse", "published by a"},
		"the older one is restarted":                    {input(true, []*desired.Entry{a, restarted}, running(a), older(running(b))), "destroy b SpecChanged graceful", ""},
		"it is stopped and comes again":                 {input(true, []*desired.Entry{a, b}, stopped(b, 1)), "create b BackOff; delayed a PortInUse", "published by b"},
		"both have stopped":                             {input(true, []*desired.Entry{a, b}, stopped(a, 0), older(stopped(b, 0))), "create b BackOff; delayed a PortInUse", "published by b"},
		"it has completed":                              {input(true, []*desired.Entry{a, b}, done(stopped(b, 0))), "create a New", ""},
		"it is suspended":                               {input(true, []*desired.Entry{a, suspended}, stopped(suspended, 0)), "create a New", ""},
		"it is not wanted":                              {input(true, []*desired.Entry{a}, stopped(b, 0)), "create a New; forget b ManifestRemoved", ""},
		"it is being removed":                           {input(true, []*desired.Entry{a}, running(b)), "destroy b ManifestRemoved graceful; delayed a PortInUse", "published by b"},
		"a plugin has published it":                     {input(true, []*desired.Entry{a, plugged("b", 8080)}, running(plugged("b", 8080))), "delayed a PortInUse", "published by b"},
		"a plugin is to publish it":                     {input(true, []*desired.Entry{plugged("a", 8080), b}, running(b)), "delayed a PortInUse", "published by b"},
		"a plugin publishes another one":                {input(true, []*desired.Entry{plugged("a", 8081), b}, running(b)), "create a New", ""},
		"not published without bridge": {input(true, []*desired.Entry{a, reconciletest.Entry("b", "a", func(s *desired.Spec) {
			s.Network = networks.Network{Mode: networks.Host, Ports: []networks.Port{{ContainerPort: 8080}}}
		})}), "create a New; create b New", ""},
		"no network":                   {input(true, []*desired.Entry{bridged("a", networks.Network{Join: []string{"front"}})}), "delayed a NetworkMissing", `spec.network.join: Network "front" does not exist`},
		"a network":                    {withNetwork(t, input(true, []*desired.Entry{bridged("a", networks.Network{Join: []string{"front"}})}), "front", "{}"), "create a New", ""},
		"one address":                  {input(true, []*desired.Entry{static("a", "default", "10.208.0.9"), static("b", "default", "10.208.0.9")}), "create a New; delayed b AddressUnusable", "spec.network.address: 10.208.0.9 on network default is the address of a"},
		"two addresses":                {input(true, []*desired.Entry{static("a", "default", "10.208.0.9"), static("b", "default", "10.208.0.10")}), "create a New; create b New", ""},
		"outside of the subnet":        {withNetwork(t, input(true, []*desired.Entry{static("a", "front", "10.208.0.9")}), "front", "{subnet: 10.44.0.0/24}"), "delayed a AddressUnusable", "10.208.0.9 can't be on network front: its subnet is 10.44.0.0/24"},
		"the gateway":                  {withNetwork(t, input(true, []*desired.Entry{static("a", "front", "10.44.0.1")}), "front", "{subnet: 10.44.0.0/24}"), "delayed a AddressUnusable", "gateway"},
		"the broadcast address":        {withNetwork(t, input(true, []*desired.Entry{static("a", "front", "10.44.0.255")}), "front", "{subnet: 10.44.0.0/24}"), "delayed a AddressUnusable", "broadcasts"},
		"no IPv6":                      {withNetwork(t, input(true, []*desired.Entry{static("a", "front", "fd44::9")}), "front", "{ipv6: false}"), "delayed a AddressUnusable", "the network has no IPv6"},
		"inside of the subnet":         {withNetwork(t, input(true, []*desired.Entry{static("a", "front", "10.44.0.9", "fd44::9")}), "front", "{subnet: 10.44.0.0/24, subnet6: 'fd44::/64'}"), "create a New", ""},
		"a network that can't be read": {broken, "delayed a NetworkMissing", `Network "default" can't be used: n.yaml`},
		"another subnet":               {withNetwork(t, input(true, []*desired.Entry{a}, at(running(a), "default", "10.208.0.0/20")), "default", "{subnet: 10.44.0.0/24}"), "destroy a NetworkChanged graceful", ""},
		"the same subnet":              {withNetwork(t, input(true, []*desired.Entry{a}, at(running(a), "default", "10.208.0.0/20")), "default", "{}"), "", ""},
		"another subnet, which overlaps that of another network": {
			withNetwork(t, withNetwork(t, input(true, []*desired.Entry{a}, at(running(a), "default", "10.208.0.0/20")), "default", "{subnet: 10.44.0.0/24}"), "front", "{subnet: 10.44.0.0/16}"),
			"delayed a AddressUnusable", `Network "default" can't have 10.44.0.0/24, which overlaps 10.44.0.0/16 of Network "front"`,
		},
		"another subnet, which another network has": {
			withNetwork(t, withNetwork(t, input(true, []*desired.Entry{a, joining("b", "front")}, at(running(a), "default", "10.208.16.0/20"), at(running(joining("b", "front")), "front", "10.208.0.0/20")), "default", "{subnet: 10.208.0.0/20}"), "front", "{}"),
			"delayed a AddressUnusable", `Network "default" can't have 10.208.0.0/20, which overlaps 10.208.0.0/20 of network front, on which b is`,
		},
		"another subnet, which a stopped sandbox keeps": {
			withNetwork(t, withNetwork(t, input(true, []*desired.Entry{a, joining("b", "front")}, at(running(a), "default", "10.208.16.0/20"), at(done(stopped(joining("b", "front"), 0)), "front", "10.208.0.0/20")), "default", "{subnet: 10.208.0.0/20}"), "front", "{}"),
			"delayed a AddressUnusable", "on which b is",
		},
		"another subnet, which is the one of before of another network": { // and in the other order neither could be started
			withNetwork(t, withNetwork(t, input(true, []*desired.Entry{a, joining("b", "front")}, at(running(a), "default", "10.44.0.0/24"), at(running(joining("b", "front")), "front", "10.45.0.0/24")), "default", "{subnet: 10.45.0.0/24}"), "front", "{subnet: 10.46.0.0/24}"),
			"destroy b NetworkChanged graceful; delayed a AddressUnusable", "on which b is",
		},
		"another IPv6 subnet, which another network has": {
			withNetwork(t, withNetwork(t, input(true, []*desired.Entry{a, joining("b", "front")}, at(running(a), "default", "10.208.16.0/20", "fd5b::/64"), at(running(joining("b", "front")), "front", "10.208.0.0/20", "fd44::/64")), "default", "{subnet6: 'fd44::/64'}"), "front", "{}"),
			"delayed a AddressUnusable", `Network "default" can't have fd44::/64, which overlaps fd44::/64 of network front`,
		},
		"another subnet and another manifest": {
			withNetwork(t, withNetwork(t, input(true, []*desired.Entry{publishing("a", 8081), joining("b", "front")}, at(running(reconciletest.Entry("a", "other", nil)), "default", "10.208.16.0/20"), at(running(joining("b", "front")), "front", "10.208.0.0/20")), "default", "{subnet: 10.208.0.0/20}"), "front", "{}"),
			"delayed a AddressUnusable", "on which b is",
		},
		"another subnet, which has room for one of two": {
			withNetwork(t, input(true, []*desired.Entry{joining("a", "front"), joining("b", "front")}, at(running(joining("a", "front")), "front", "10.208.0.0/20"), at(running(joining("b", "front")), "front", "10.208.0.0/20")), "front", "{subnet: 10.44.0.0/30}"),
			"delayed a AddressUnusable; delayed b AddressUnusable", `Network "front" can't have 10.44.0.0/30, which has room for 1, and 2 join it`,
		},
		"another subnet, which has room for one, and another one is new": {
			withNetwork(t, input(true, []*desired.Entry{joining("a", "front"), joining("b", "front")}, at(running(joining("a", "front")), "front", "10.208.0.0/20")), "front", "{subnet: 10.44.0.0/30}"),
			"create b New; delayed a AddressUnusable", "room for 1, and 2 join it",
		},
		"another subnet, which has room for the one that there is": {
			withNetwork(t, input(true, []*desired.Entry{joining("a", "front"), joining("b", "back")}, at(running(joining("a", "front")), "front", "10.208.0.0/20"), at(running(joining("b", "back")), "back", "10.209.0.0/20")), "front", "{subnet: 10.44.0.0/30}"),
			"destroy a NetworkChanged graceful", "",
		},
		"another IPv6 subnet, which has room for two": {
			withNetwork(t, input(true, []*desired.Entry{joining("a", "front"), joining("b", "front")}, at(running(joining("a", "front")), "front", "10.208.0.0/20", "fd5b::/64"), at(running(joining("b", "front")), "front", "10.208.0.0/20", "fd5b::/64")), "front", "{subnet6: 'fd44::/126'}"),
			"destroy a NetworkChanged graceful; destroy b NetworkChanged graceful", "",
		},
		"another MTU on a network without room for more": {
			withNetwork(t, input(true, []*desired.Entry{joining("a", "front"), suspendedOn("b", "front")}, at(running(joining("a", "front")), "front", "10.44.0.0/30"), at(stopped(suspendedOn("b", "front"), 0), "front", "10.208.0.0/20")), "front", "{subnet: 10.44.0.0/30, mtu: 1400}"),
			"destroy a NetworkChanged graceful", "",
		},
		"another subnet, and an address that is not in it": {
			withNetwork(t, input(true, []*desired.Entry{static("a", "front", "10.208.0.9")}, at(running(static("a", "front", "10.208.0.9")), "front", "10.208.0.0/20")), "front", "{subnet: 10.44.0.0/24}"),
			"delayed a AddressUnusable", "its subnet is 10.44.0.0/24",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := reconcile.Compute(c.in)
			got := []string{}
			if s := show(p); s != "" {
				got = append(got, s)
			}
			why := ""
			for _, d := range p.Delayed {
				got = append(got, fmt.Sprintf("delayed %s %s", d.Name, d.Reason))
				if d.Reason != actual.ReasonBackOff {
					why = d.Why
				}
			}
			if s := strings.Join(got, "; "); s != c.want || !strings.Contains(why, c.why) {
				t.Errorf("got %q because %q, expected %q because %q", s, why, c.want, c.why)
			}
			for _, s := range reconcile.Statuses(c.in, p) {
				for _, d := range p.Delayed {
					if ready := s.Condition(reconcile.CondReady); d.Name == s.Name && s.Phase == reconcile.PhasePending && (ready.Reason != d.Reason || ready.Message != d.Why) {
						t.Errorf("status of %s: %+v", s.Name, s)
					}
				}
			}
		})
	}
}
