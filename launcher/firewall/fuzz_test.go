// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sandboxctl.dev/launcher/firewall/objects"
)

// TestAccepted has the kernel accept the rules of any ruleset that check does, one after
// the other, and a change of ours never looks like one of somebody else.
func TestAccepted(t *testing.T) {
	t.Parallel()
	table, err := Open(newNS(t), "sandboxctl-test")
	if err != nil {
		t.Fatal(err)
	}
	installed := 0
	rapid.Check(t, func(rt *rapid.T) {
		r := drawRuleset(rt)
		if r == nil {
			return
		}
		if err := table.Install(t.Context(), r); err != nil {
			rt.Fatalf("%v", err)
		}
		if intact, err := table.Intact(); !intact || err != nil {
			rt.Fatalf("it looks like somebody else's: %v", err)
		}
		if all, err := table.Counters(); len(all) != len(r.Sandboxes) || err != nil {
			rt.Fatalf("counters of %d sandboxes, expected %d: %v", len(all), len(r.Sandboxes), err)
		}
		installed++
	})
	if installed == 0 {
		t.Error(errors.New("this test sees nothing"))
	}
}

// drawRuleset is one that check accepts, nil if two sandboxes would publish one port.
func drawRuleset(t *rapid.T) *Ruleset {
	r := &Ruleset{LogGroup: rapid.SampledFrom([]uint16{0, 7}).Draw(t, "group")}
	for i := range rapid.IntRange(0, 6).Draw(t, "sandboxes") {
		r.Sandboxes = append(r.Sandboxes, drawSandbox(t, i))
	}
	if _, err := compile(r, objects.Kind); err != nil {
		if !strings.Contains(err.Error(), "is published by") {
			t.Fatalf("%v", err)
		}
		return nil
	}
	return r
}

func drawSandbox(t *rapid.T, i int) Sandbox {
	s := Sandbox{Name: fmt.Sprintf("s%d", i)}
	network := rapid.SampledFrom([]string{"a", "b", "c"})
	for k := range rapid.IntRange(1, 3).Draw(t, "attachments") {
		s.Attachments = append(s.Attachments, Attachment{
			Network: network.Draw(t, "network"), Link: fmt.Sprintf("sb%d-%d", i, k), Internal: rapid.Bool().Draw(t, "internal"), Isolated: rapid.Bool().Draw(t, "isolated"),
			Address4: netip.AddrFrom4([4]byte{10, 0, byte(i), byte(k + 2)}), Gateway4: netip.AddrFrom4([4]byte{10, 0, 0, 1}),
			Address6: netip.MustParseAddr(fmt.Sprintf("fd00::%d:%d", i, k+2)), Gateway6: netip.MustParseAddr("fd00::1"),
		})
	}
	for range rapid.IntRange(0, 3).Draw(t, "ports") {
		p := Port{Protocol: rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "protocol"), HostPort: rapid.Uint16Range(1, 65000).Draw(t, "hostPort"), To: rapid.Uint16Range(1, 65000).Draw(t, "to"), Count: rapid.IntRange(1, 500).Draw(t, "count")}
		if ip := rapid.SampledFrom([]string{"", "127.0.0.1", "0.0.0.0", "::", "2a00::1"}).Draw(t, "hostIP"); ip != "" {
			p.HostIP = netip.MustParseAddr(ip)
		}
		s.Ports = append(s.Ports, p)
	}
	s.Connections = rapid.SampledFrom([]int{0, 1, 1 << 20}).Draw(t, "connections")
	s.Egress = drawReach(t, true)
	s.Ingress = drawReach(t, false)
	return s
}

func drawReach(t *rapid.T, egress bool) Reach {
	kinds := []string{"", Allow, Deny}
	if egress {
		kinds = append(kinds, Public)
	}
	r := Reach{Default: rapid.SampledFrom(kinds).Draw(t, "default"), Log: rapid.Bool().Draw(t, "log"), LogAllowed: rapid.Bool().Draw(t, "logAllowed")}
	for range rapid.IntRange(0, 5).Draw(t, "rules") {
		rule := Rule{Port: rapid.SampledFrom([]uint16{0, 1, 443, 65535}).Draw(t, "port")}
		kind := rapid.IntRange(0, map[bool]int{true: 4, false: 2}[egress]).Draw(t, "kind")
		switch kind {
		case 0:
			rule.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "four"))), rapid.IntRange(0, 32).Draw(t, "bits")).Masked()
		case 1:
			a := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "six")
			a[0] = 0x20
			rule.Prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte(a)), rapid.IntRange(0, 128).Draw(t, "bits")).Masked()
		case 2:
			rule.Sandbox = fmt.Sprintf("s%d", rapid.IntRange(0, 7).Draw(t, "sandbox"))
		case 3:
			rule.Name = rapid.SampledFrom([]string{"example.org", "a.example.org", strings.Repeat("a.", 120) + "org"}).Draw(t, "name")
		case 4:
			rule.Host, rule.Port = true, 80
		}
		r.Allow = append(r.Allow, rule)
	}
	return r
}
