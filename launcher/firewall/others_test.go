// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/actual/hosttest"
)

// Chains that drop what nobody accepts are found as docker, ufw and firewalld write them, and
// not any more when they have a rule about links of sandboxes.
func TestDropping(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"iptables-nft", "ip6tables-nft", "nft"} {
		if _, err := exec.LookPath(p); err != nil {
			hosttest.Lacks(t, "%v; `make setup` installs it", err)
		}
	}
	for _, c := range []struct {
		what, script string
		want         []string
	}{
		{"nothing", "", nil},
		{"a firewall of the host alone", "nft 'add table inet f; add chain inet f input { type filter hook input priority 0; policy drop; }'", nil},
		{"docker", "iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN; iptables-nft -P FORWARD DROP", []string{"chain FORWARD of table ip filter"}},
		{"docker with a rule", "iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -P FORWARD DROP; iptables-nft -I DOCKER-USER -i sb+ -j ACCEPT; iptables-nft -I DOCKER-USER -o sb+ -j ACCEPT", nil},
		{"docker with a rule about another link", "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -i eth0 -j ACCEPT", []string{"chain FORWARD of table ip filter"}},
		{"ufw", "iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP", []string{"chain FORWARD of table ip filter", "chain FORWARD of table ip6 filter"}},
		{"a last rule of iptables", "iptables-nft -A FORWARD -i eth0 -j ACCEPT; iptables-nft -A FORWARD -j REJECT", []string{"chain FORWARD of table ip filter"}},
		{
			"firewalld", "nft 'add table inet firewalld; add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }; add rule inet firewalld filter_FORWARD ct state established accept; add rule inet firewalld filter_FORWARD counter reject with icmpx admin-prohibited'",
			[]string{"chain filter_FORWARD of table inet firewalld"},
		},
		{"a rule that drops some", "nft 'add table inet f; add chain inet f chain1 { type filter hook forward priority 0; policy accept; }; add rule inet f chain1 iifname eth0 drop'", nil},
		{"a rule about a link", "nft 'add table inet f; add chain inet f chain1 { type filter hook forward priority 0; policy drop; }; add rule inet f chain1 iifname \"sb*\" accept'", nil},
		{"of a bridge", "nft 'add table bridge f; add chain bridge f chain1 { type filter hook forward priority 0; policy drop; }'", nil},
		{"our own", "nft 'add table inet own; add chain inet own forward { type filter hook forward priority 0; policy drop; }'", nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			ns := newNS(t)
			table, err := Open(ns, "own")
			if err != nil {
				t.Fatal(err)
			}
			err = ns.Do(func() error {
				if out, err := exec.Command("sh", "-ec", c.script).CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := table.Dropping(); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%s, %v, expected %s", strings.Join(got, ", "), err, strings.Join(c.want, ", "))
			}
		})
	}
}
