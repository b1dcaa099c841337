// SPDX-License-Identifier: Apache-2.0

package sent

import (
	"testing"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// shown is a rule as it was sent.
func shown(t *testing.T, rule ...expr.Any) []byte {
	t.Helper()
	var list []netlink.Attribute
	for _, e := range rule {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, netlink.Attribute{Type: netlink.Nested | unix.NFTA_LIST_ELEM, Data: b})
	}
	b, err := netlink.MarshalAttributes(list)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Another value, order or number of expressions is another rule. What kernels show otherwise than
// it was sent is in TestStep of the firewall, which asks one.
func TestIs(t *testing.T) {
	t.Parallel()
	link := &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1}
	is := func(set string, id uint32) expr.Any {
		return &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set, SetID: id}
	}
	to := func(kind expr.VerdictKind, chain string) expr.Any { return &expr.Verdict{Kind: kind, Chain: chain} }
	rule := []expr.Any{link, is("links", 1), to(expr.VerdictJump, "forward")}
	for what, c := range map[string]struct {
		has  []byte
		want bool
	}{
		"the same":                    {shown(t, rule...), true},
		"a set of another number":     {shown(t, link, is("links", 7), rule[2]), true},
		"a register by another name":  {shown(t, &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_2}, rule[1], rule[2]), false},
		"another set":                 {shown(t, link, is("closed", 1), rule[2]), false},
		"another chain":               {shown(t, link, rule[1], to(expr.VerdictJump, "other")), false},
		"another verdict":             {shown(t, link, rule[1], to(expr.VerdictGoto, "forward")), false},
		"another key":                 {shown(t, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_1}, rule[1], rule[2]), false},
		"another order":               {shown(t, rule[1], link, rule[2]), false},
		"one more":                    {shown(t, append(rule, &expr.Counter{})...), false},
		"one less":                    {shown(t, rule[:2]...), false},
		"nothing":                     {nil, false},
		"what is none":                {[]byte{1, 2, 3}, false},
		"an expression without a set": {shown(t, link, &expr.Lookup{SourceRegister: unix.NFT_REG_1}, rule[2]), false},
	} {
		if got := Is(rule, c.has); got != c.want {
			t.Errorf("%s: %t", what, got)
		}
	}
	wide := []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG32_04}}
	if !Is(wide, shown(t, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_2})) || Is(wide, shown(t, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1})) {
		t.Error("a register of 4 bytes is not that of 16")
	}
}
