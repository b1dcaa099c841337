// SPDX-License-Identifier: Apache-2.0

package others

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/netns"
)

// A chain that can't be read is what it was before, and keeps no other one from being found.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	var kernel *netlink.Conn
	c, err := nftables.New(nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
		if len(req) == 1 && uint16(req[0].Header.Type)&0xff == unix.NFT_MSG_GETRULE && bytes.Contains(req[0].Data, []byte("torn")) {
			return nil, unix.EINTR
		}
		var out []netlink.Message
		for _, m := range req {
			m.Header.Length, m.Header.Sequence, m.Header.PID = 0, 0, 0
			replies, err := kernel.Execute(m)
			if err != nil {
				return nil, err
			}
			out = append(out, replies...)
		}
		for i := range out {
			out[i].Header.Sequence, out[i].Header.PID = req[0].Header.Sequence, req[0].Header.PID
			out[i].Header.Flags &^= netlink.Multi
		}
		return out, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	err = ns.Do(func() (err error) {
		out, err := exec.Command("nft", "add table ip torn; add chain ip torn forward { type filter hook forward priority 0; policy accept; }; add rule ip torn forward drop; "+
			"add table ip whole; add chain ip whole forward { type filter hook forward priority 0; policy accept; }; add rule ip whole forward drop").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		kernel, err = netlink.Dial(unix.NETLINK_NETFILTER, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	const torn, whole = "chain forward of table ip torn", "chain forward of table ip whole"
	for _, step := range []struct {
		before, want []string
		fails        bool
	}{
		{before: nil, want: []string{whole}, fails: true},
		{before: []string{torn, "chain that is gone"}, want: []string{torn, whole}, fails: true},
	} {
		got, err := dropping(c, "own", step.before)
		if !slices.Equal(got, step.want) || (err != nil) != step.fails {
			t.Errorf("%v, %v, after %v; expected %v", got, err, step.before, step.want)
		}
	}
}

// Chains that drop what nobody accepts are found as docker, ufw and firewalld write them, and
// not any more when they have a rule about links of sandboxes.
func TestDropping(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "making a network namespace needs root")
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
			ns, err := netns.New()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(ns.Close)
			var got []string
			err = ns.Do(func() error {
				if out, err := exec.Command("sh", "-ec", c.script).CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				var err error
				got, err = Dropping("own", []string{"chain that of table inet is gone"})
				return err
			})
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%s, %v, expected %s", strings.Join(got, ", "), err, strings.Join(c.want, ", "))
			}
		})
	}
}
