// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// explain says what of nftables the kernel lacks, if that is why rules were refused: the
// kernel itself says no more than that something does not exist.
func explain(err error) error {
	for _, lack := range []error{unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EINVAL, unix.EPERM} {
		if !errors.Is(err, lack) {
			continue
		}
		if missing := lacks(attempt); len(missing) > 0 {
			return fmt.Errorf("firewall: the kernel lacks %s, which sandboxes on networks need; load the modules, or take a kernel that has them: %w", strings.Join(missing, ", "), err)
		}
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("firewall: no permission to change nftables: CAP_NET_ADMIN is needed: %w", err)
	}
	return fmt.Errorf("firewall: install rules: %w", err)
}

// feature is something that rules are made of.
type feature struct {
	what string
	// chain is what the rule is in; the zero value is for one without a hook.
	chain base
	rule  rule
}

var features = []feature{
	{"nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)", base{}, nil},
	{"nft_ct and nf_conntrack (CONFIG_NFT_CT)", base{}, all(state(stateEstablished))},
	{"nft_reject_inet (CONFIG_NFT_REJECT_INET)", base{nftables.ChainTypeFilter, nftables.ChainHookForward, 0}, reject[1]},
	{"nft_fib_inet (CONFIG_NFT_FIB_INET)", base{nftables.ChainTypeFilter, nftables.ChainHookPrerouting, 0}, all(localDestination())},
	{
		"nft_chain_nat and nf_nat (CONFIG_NFT_NAT)",
		base{nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100},
		all(four.is(), one(&expr.Immediate{Register: first, Data: []byte{192, 0, 2, 1}}, &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: first})),
	},
	{"nft_masq (CONFIG_NFT_MASQ)", base{nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100}, all(one(&expr.Masq{}))},
	{"nft_limit (CONFIG_NFT_LIMIT)", base{}, rule{&expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond, Burst: 1}}},
	{"nft_log (CONFIG_NFT_LOG)", base{}, rule{&expr.Log{Key: logPrefix, Data: []byte("probe")}}},
}

// lacks are the features that an attempt refuses.
func lacks(try func(feature) error) (missing []string) {
	for _, f := range features {
		if err := try(f); errors.Is(err, unix.EPERM) {
			return nil // it tells nothing
		} else if err != nil {
			missing = append(missing, f.what)
			if f.rule == nil {
				break // nothing works without it
			}
		}
	}
	return missing
}

// attempt has the kernel check a rule, in a table that is gone when the transaction is.
func attempt(f feature) error {
	c, err := connection()
	if err != nil {
		return err
	}
	t := c.AddTable(&nftables.Table{Name: "sandboxctl-probe", Family: nftables.TableFamilyINet})
	chain := &nftables.Chain{Name: "probe", Table: t}
	if f.chain.hook != nil {
		chain.Type, chain.Hooknum, chain.Priority = f.chain.kind, f.chain.hook, &f.chain.priority
	}
	c.AddChain(chain)
	if f.rule != nil {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: f.rule})
	}
	c.DelTable(t)
	return c.Flush()
}
