// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"strings"
	"testing"

	"sandboxctl.dev/desired/networks"
)

func network(t *testing.T, text string) *networks.Network {
	t.Helper()
	docs, ps := Decode("f.yaml", []byte(with("network: "+text)))
	if len(ps) > 0 {
		t.Fatalf("%s: %v", text, ps)
	}
	return &docs[0].Sandbox.Spec.Network
}

func TestNetworkDefaults(t *testing.T) {
	t.Parallel()
	for text, mode := range map[string]string{
		"{}":                                         networks.None,
		"{ports: [{containerPort: 80}]}":             networks.Bridge,
		"{join: [front]}":                            networks.Bridge,
		"{address: 10.210.0.9}":                      networks.Bridge,
		"{aliases: [db]}":                            networks.Bridge,
		"{egress: {default: deny}}":                  networks.Bridge,
		"{bandwidth: {egress: 1Mbit}}":               networks.Bridge,
		"{ingress: {default: deny}}":                 networks.Bridge,
		"{dns: {servers: [9.9.9.9]}}":                networks.Bridge,
		"{extraHosts: [{ip: 10.0.0.5, names: [a]}]}": networks.Bridge,
		"{maxConnections: 100}":                      networks.Bridge,
		"{mode: bridge}":                             networks.Bridge,
		"{mode: none, ports: [{containerPort: 80}]}": networks.None,
	} {
		if got := network(t, text).Mode; got != mode {
			t.Errorf("%s has mode %s, expected %s", text, got, mode)
		}
	}
	n := network(t, "{ports: [{containerPort: 80}, {range: 6000-6010, hostPort: 7000, protocol: udp}], egress: {allow: [\"10.0.0.0/8\"]}, ingress: {}}")
	if len(n.Join) != 1 || n.Join[0] != networks.DefaultName || n.Ports[0].Protocol != networks.TCP || n.Ports[1].Protocol != networks.UDP || n.Egress.Default != networks.Deny || n.Ingress.Default != networks.Allow {
		t.Errorf("%+v, egress %+v, ingress %+v", n, n.Egress, n.Ingress)
	}
	if p := n.Published(); len(p) != 1 || p[0].Describe() != "7000-7010/UDP" {
		t.Errorf("published: %+v", p)
	}
}

// What is only a rule or a file of the host is changed without a restart.
func TestNetworkHash(t *testing.T) {
	t.Parallel()
	hash := func(text string) string {
		docs, ps := Decode("f.yaml", []byte(with("network: "+text)))
		if len(ps) > 0 {
			t.Fatalf("%s: %v", text, ps)
		}
		return docs[0].hash
	}
	bridge := hash("{mode: bridge}")
	for _, same := range []string{
		"{join: [default]}", "{ports: [{containerPort: 80, hostPort: 8080}]}", "{aliases: [db]}", "{egress: {default: deny}}", "{ingress: {default: deny}}",
		"{egress: {log: true}, ingress: {log: true, logAllowed: true}}", "{bandwidth: {egress: 1Mbit, ingress: 1Gbit}}",
		"{extraHosts: [{ip: 10.0.0.5, names: [a]}, {ip: host-gateway, names: [b]}]}",
	} {
		if hash(same) != bridge {
			t.Errorf("%s needs a restart", same)
		}
	}
	for _, other := range []string{"{mode: none}", "{join: [front]}", "{join: [default, front]}", "{address: 10.210.0.9}", "{dns: {servers: [9.9.9.9]}}", "{dns: {}}"} {
		if hash(other) == bridge {
			t.Errorf("%s needs no restart", other)
		}
	}
	one, list := hash("{address: 10.210.0.9}"), hash("{address: [10.210.0.9]}")
	if one != list {
		t.Error("an address and a list of one differ")
	}
}

func TestNetworkProblems(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{ports: [{hostPort: 80}]}":                  "f.yaml:7:21: spec.network.ports[0]: expected containerPort, a port from 1 to 65535, or range",
		"{ports: [{containerPort: 0}]}":              "spec.network.ports[0]: expected containerPort",
		"{ports: [{containerPort: 65536}]}":          "spec.network.ports[0].containerPort: expected a whole number from 0 to 65535, got 65536",
		"{ports: [{containerPort: 80, range: 1-2}]}": "ports[0].range: expected containerPort or range, got both",
		"{ports: [{range: 6010-6000}]}":              `ports[0].range: expected two ports such as 6000-6010, the lower one first, got "6010-6000"`,
		"{ports: [{range: 1-2000, hostPort: 1}]}":    "ports[0].range: expected at most 1000 ports, got 2000",
		"{ports: [{range: 1-600, hostPort: 2000}, {range: 1-600, hostPort: 3000, protocol: UDP}]}":               "ports[1].hostPort: expected at most 1000 ports of the host in all, got 1200 up to here",
		"{ports: [{range: 1-100, hostPort: 65500}]}":                                                             "ports[0].hostPort: 100 ports from 65500 on end at 65599",
		"{ports: [{containerPort: 80, protocol: SCTP}]}":                                                         `ports[0].protocol: expected one of TCP, UDP, got "SCTP"`,
		"{ports: [{containerPort: 80, hostIP: 127.0.0.1}]}":                                                      "ports[0].hostIP: is for ports with a hostPort",
		"{ports: [{containerPort: 80, hostPort: 1, hostIP: 0.0.0.0}]}":                                           "ports[0].hostIP: leave it out for all addresses",
		"{ports: [{containerPort: 80, hostPort: 1, hostIP: localhost}]}":                                         `ports[0].hostIP: expected an address such as 10.0.0.5 or fd00::5, got "localhost"`,
		`{ports: [{containerPort: 80, hostPort: 1, hostIP: "::ffff:127.0.0.1"}]}`:                                `did you mean "127.0.0.1"?`,
		"{ports: [{containerPort: 80, hostPort: 1, hostIP: 224.0.0.1}]}":                                         "multicast",
		"{ports: [{containerPort: 80, name: -x}]}":                                                               "ports[0].name: expected a DNS label",
		"{ports: [{containerPort: 80, name: a}, {containerPort: 81, name: a}]}":                                  "ports[1].name: a is given twice",
		"{ports: [{containerPort: 80}, {containerPort: 80}]}":                                                    "ports[1]: says the same as spec.network.ports[0]",
		"{ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81, hostPort: 8080, hostIP: 127.0.0.1}]}": "ports[1].hostPort: 127.0.0.1:8080/TCP is published by spec.network.ports[0] too, as 8080/TCP",
		"{ports: [{range: 1-10, hostPort: 8075}, {containerPort: 81, hostPort: 8080}]}":                          "ports[1].hostPort: 8080/TCP is published by spec.network.ports[0] too, as 8075-8084/TCP",
		"{mode: none, ports: [{containerPort: 80, hostPort: 8080}]}":                                             "ports[0].hostPort: is for network.mode bridge and cni only, which is none",
		"{mode: host, join: [a]}":                                                                                "spec.network.join: is for network.mode bridge only, which is host",
		"{maxConnections: 15}":                                                                                   "f.yaml:7:13: spec.network.maxConnections: expected a number from 16 to 1000000, got 15",
		"{maxConnections: -1}":                                                                                   "spec.network.maxConnections: expected a number from 16 to 1000000, got -1",
		"{mode: none, maxConnections: 100}":                                                                      "spec.network.maxConnections: is for network.mode bridge only, which is none",
		"{mode: bridge, netns: a}":                                                                               "spec.network.netns: is for network.mode netns only, which is bridge",
		"{mode: cni}":                                                                                            `spec.network.cni: expected the name of a network of CNI, as a file of /etc/cni/net.d has it (letters, digits, _ . and -), got ""`,
		"{mode: cni, cni: a/b}":                                                                                  `spec.network.cni: expected the name of a network of CNI`,
		"{cni: a}":                                                                                               "spec.network.cni: is for network.mode cni only, which is none",
		"{mode: cni, cni: a, egress: {default: deny}}":                                                           "spec.network.egress: is for network.mode bridge only, which is cni",
		"{mode: cni, cni: a, dns: {search: [b]}}":                                                                "spec.network.dns: is for network.mode bridge only, which is cni",
		"{mode: cni, cni: a, ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81, hostPort: 8080}]}": "ports[1].hostPort: 8080/TCP is published by spec.network.ports[0] too, as 8080/TCP",
		"{join: [A]}":                                            "join[0]: expected a DNS label",
		"{join: [a, a]}":                                         "join[1]: a is given twice",
		"{join: [a, b, c, d, e, f, g, h, i]}":                    "join: expected at most 8 entries, got 9",
		"{join: a}":                                              `join: expected a list, got "a"; for example join: [front, back]`,
		"{join: [a, b], address: 10.0.0.1}":                      "address: is possible with one network only, and join has 2",
		"{address: 10.0.0.256}":                                  `address: expected an address`,
		"{address: [10.0.0.1, 10.0.0.2]}":                        "address[1]: expected one address for each family",
		"{address: 127.0.0.1}":                                   "address: expected an address of the network, got 127.0.0.1",
		"{address: {}}":                                          "address: expected a list, got an object",
		"{address: 10}":                                          "address: expected a string, got the number 10; quote it",
		"{aliases: [" + strings.Repeat("a", 64) + "]}":           "aliases[0]:",
		"{aliases: [DB]}":                                        `aliases[0]: expected a name in lower case and without a dot at its end, got "DB"; did you mean "db"?`,
		"{egress: {default: none}}":                              `egress.default: expected one of allow, deny, public, got "none"`,
		"{ingress: {default: public}}":                           "ingress.default: public is for egress only",
		"{egress: {allow: [\"10.1.2.3/8\"]}}":                    "egress.allow[0]: 10.1.2.3/8 has bits after its length; did you mean 10.0.0.0/8, or 10.1.2.3/32?",
		"{egress: {allow: [\"*.example.org\"]}}":                 "egress.allow[0]: expected a prefix",
		"{egress: {allow: [db]}}":                                "egress.allow[0]: expected a name with a dot",
		"{egress: {allow: [a.b, a.b]}}":                          "egress.allow[1]: a.b is given twice",
		"{egress: {default: allow, allow: [a.b]}}":               "egress.allow[0]: has no effect with default: allow",
		"{ingress: {allow: [example.org]}}":                      "ingress.allow[0]: names are for egress",
		"{ingress: {allow: [\"host:80\"]}}":                      "ingress.allow[0]: ports of the host are for egress",
		"{dns: {servers: [dns.google]}}":                         "dns.servers[0]: expected an address",
		"{dns: {servers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}}": "dns.servers: expected at most 3 entries, got 4",
		"{dns: {search: [a..b]}}":                                "dns.search[0]:",
		"{dns: {options: [\"ndots: 2\"]}}":                       "dns.options[0]: expected an option of resolv.conf(5)",
		"{extraHosts: [{ip: 10.0.0.5}]}":                         "extraHosts[0].names: is missing",
		"{dns: {servers: [127.0.0.53]}}":                         "the host's own",
		"{dns: {servers: [\"fe80::1\"]}}":                        "the host's own",
		"{extraHosts: [{ip: a, names: [b]}]}":                    "extraHosts[0].ip: expected an address",
		"{extraHosts: [{ip: 10.0.0.5, names: [\"a b\"]}]}":       "extraHosts[0].names[0]:",
		"{bandwidth: {}}":                                        "spec.network.bandwidth: expected egress or ingress, a rate such as 10Mbit",
		"{bandwidth: 10Mbit}":                                    `spec.network.bandwidth: expected an object, got "10Mbit"; for example bandwidth: {egress: 10Mbit, ingress: 10Mbit}`,
		"{bandwidth: {egress: 10}}":                              "f.yaml:7:33: spec.network.bandwidth.egress:",
		"{bandwidth: {egress: 10M}}":                             `spec.network.bandwidth.egress: expected bits in a second such as "10Mbit" or "500kbit", got "10M"`,
		"{bandwidth: {ingress: 255kbit}}":                        "bandwidth.ingress: expected 256kbit to 100Gbit, got 255kbit",
		"{bandwidth: {ingress: 101Gbit}}":                        "bandwidth.ingress: expected 256kbit to 100Gbit, got 101Gbit",
		"{bandwidth: {ingres: 1Mbit}}":                           `did you mean "ingress"?`,
		"{mode: none, bandwidth: {egress: 1Mbit}}":               "spec.network.bandwidth: is for network.mode bridge only, which is none",
		"{egress: {log: yes}}":                                   "spec.network.egress.log: expected true or false",
		"{mode: brigde}":                                         `did you mean "bridge"?`,
	} {
		got := problems(t, with("network: "+text))
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s\nexpected %s", text, got, want)
		}
	}
}

func TestNetworkDocument(t *testing.T) {
	t.Parallel()
	doc := func(spec string) string {
		return "apiVersion: " + APIVersion + "\nkind: Network\nmetadata: {name: front}\nspec: " + spec + "\n"
	}
	docs, ps := Decode("f.yaml", []byte(doc("{subnet: 10.44.0.0/24, subnet6: 'fd44::/64', internal: true}")))
	if len(ps) > 0 || docs[0].Name != "network/front" {
		t.Fatalf("%+v, %v", docs, ps)
	}
	if n := docs[0].Network; n.MTU != networks.DefaultMTU || !*n.IPv6 || !n.Internal || n.Prefix4().Bits() != 24 || n.Value("subnet6") != "fd44::/64" {
		t.Errorf("%+v", n)
	}
	for spec, want := range map[string]string{
		"{}": "",
		"{ipv6: false, mtu: 9000, isolation: true}": "",
		"{subnet: 10.44.0.1/24}":                    "f.yaml:4:8: spec.subnet: 10.44.0.1/24 has bits after its length; did you mean 10.44.0.0/24",
		"{subnet: 10.44.0.0/31}":                    "spec.subnet: expected /8 to /30, got 10.44.0.0/31",
		"{subnet: 'fd44::/64'}":                     "IPv6 belongs into subnet6",
		"{subnet6: 10.44.0.0/24}":                   "IPv4 belongs into subnet",
		"{subnet6: 'fd44::/127'}":                   "spec.subnet6: expected /48 to /126",
		"{subnet: 8.8.8.0/24}":                      "spec.subnet: expected private addresses",
		"{ipv6: false, subnet6: 'fd44::/64'}":       "spec.subnet6: is not possible with ipv6: false",
		"{mtu: 576}":                                "spec.mtu: expected 1280 to 65535 bytes, got 576",
		"{ipam: {}}":                                "ipam has another name here; use subnet: 10.44.0.0/24",
		"{driver: bridge}":                          `unknown field "driver"`,
	} {
		docs, ps := Decode("f.yaml", []byte(doc(spec)))
		got := ""
		if len(ps) > 0 {
			got = ps[0].Error()
		}
		if (want == "") != (got == "") || !strings.Contains(got, want) || (want == "") != (docs[0].Network != nil) {
			t.Errorf("%s: %q, expected %q", spec, got, want)
		}
	}
}
