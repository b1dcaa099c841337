// SPDX-License-Identifier: Apache-2.0

// Package others finds what the firewalls of other programs drop of what sandboxes send and
// receive. It changes nothing.
package others

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// linkPrefix begins the names of links of sandboxes.
const linkPrefix = "sb"

// exchangeTime is how long the kernel may take to answer.
const exchangeTime = 30 * time.Second

// families are those whose chains see packets that the host forwards between links.
var families = map[nftables.TableFamily]string{nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}

// Dropping are the chains of other tables that drop what the host forwards unless a rule of
// theirs accepts it, and that have no rule about links of sandboxes; as docker and ufw have
// them. What one table accepts another one still drops, so that nothing here can help: the
// owner of the table must add a rule. own is the name of the table that is not another's. A
// chain that can't be read, while somebody changes it for one, is said to be what it was before:
// those that are known of it are given. It is one of the namespace of the calling thread.
func Dropping(own string, before []string) ([]string, error) {
	c, err := nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return c.SetDeadline(time.Now().Add(exchangeTime))
	}))
	if err != nil {
		return before, fmt.Errorf("rules of other programs: %w", err)
	}
	return dropping(c, own, before)
}

func dropping(c *nftables.Conn, own string, before []string) (out []string, err error) {
	chains, err := c.ListChains()
	if err != nil {
		return before, fmt.Errorf("list chains of nftables: %w", err)
	}
	var errs []error
	for _, chain := range chains {
		family := families[chain.Table.Family]
		if family == "" || chain.Hooknum == nil || *chain.Hooknum != *nftables.ChainHookForward ||
			chain.Table.Name == own && chain.Table.Family == nftables.TableFamilyINet {
			continue
		}
		name := fmt.Sprintf("chain %s of table %s %s", chain.Name, family, chain.Table.Name)
		drops, err := dropsRest(c, chain)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			if slices.Contains(before, name) {
				out = append(out, name)
			}
		case drops && !namesLinks(c, chains, chain.Table):
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, errors.Join(errs...)
}

// dropsRest says whether a chain drops, or refuses, what its rules say nothing of.
func dropsRest(c *nftables.Conn, chain *nftables.Chain) (bool, error) {
	if chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
		return true, nil
	}
	rules, err := c.GetRules(chain.Table, chain)
	if err != nil {
		return false, fmt.Errorf("read rules of nftables: %w", err)
	}
	if len(rules) == 0 {
		return false, nil
	}
	drops := false
	for _, e := range rules[len(rules)-1].Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log, *expr.Limit:
		case *expr.Verdict:
			drops = e.Kind == expr.VerdictDrop
		case *expr.Reject:
			drops = true
		case *expr.Target:
			drops = e.Name == "REJECT"
		default:
			return false, nil // it is about some packets only
		}
	}
	return drops, nil
}

// namesLinks says whether a table has a rule about links of sandboxes: its owner knows of them
// then. Rules that can't be read say nothing.
func namesLinks(c *nftables.Conn, chains []*nftables.Chain, table *nftables.Table) bool {
	for _, chain := range chains {
		if chain.Table.Name != table.Name || chain.Table.Family != table.Family {
			continue
		}
		rules, err := c.GetRules(chain.Table, chain)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return aboutLinks(r.Exprs) }) {
			return true
		}
	}
	return false
}

// aboutLinks says whether a rule compares the name of an interface with one of a sandbox's, or
// with how all of them begin.
func aboutLinks(exprs []expr.Any) bool {
	named := false
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			named = e.Key == expr.MetaKeyIIFNAME || e.Key == expr.MetaKeyOIFNAME
		case *expr.Cmp:
			if named && bytes.HasPrefix(e.Data, []byte(linkPrefix)) {
				return true
			}
		}
	}
	return false
}
