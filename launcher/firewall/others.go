// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// linkPrefix begins the names of links of sandboxes.
const linkPrefix = "sb"

// others are the families whose chains see packets that the host forwards between links.
var others = map[nftables.TableFamily]string{nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}

// Dropping are the chains of other tables that drop what the host forwards unless a rule of
// theirs accepts it, and that have no rule about links of sandboxes; as docker and ufw have
// them. What one table accepts another one still drops, so that nothing here can help: the
// owner of the table must add a rule.
func (t *Table) Dropping() (out []string, err error) {
	err = t.ns.Do(func() (err error) {
		out, err = dropping(t.table.Name)
		return err
	})
	return out, err
}

// Dropping is that of the namespace of this process; own is the name of the table that is
// not another's.
func Dropping(own string) ([]string, error) {
	t, err := Open(nil, own)
	if err != nil {
		return nil, err
	}
	return t.Dropping()
}

func dropping(own string) (out []string, err error) {
	c, err := connection()
	if err != nil {
		return nil, err
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains of nftables: %w", err)
	}
	for _, chain := range chains {
		family := others[chain.Table.Family]
		if family == "" || chain.Hooknum == nil || *chain.Hooknum != *nftables.ChainHookForward ||
			chain.Table.Name == own && chain.Table.Family == nftables.TableFamilyINet {
			continue
		}
		drops, err := dropsRest(c, chain)
		if err != nil {
			return nil, err
		}
		if drops && !namesLinks(c, chains, chain.Table) {
			out = append(out, fmt.Sprintf("chain %s of table %s %s", chain.Name, family, chain.Table.Name))
		}
	}
	slices.Sort(out)
	return out, nil
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
