// SPDX-License-Identifier: Apache-2.0

package stricter

import (
	"testing"

	"sandboxctl.dev/launcher/firewall"
)

// Public is looser than deny and stricter than allow.
func TestReaches(t *testing.T) {
	t.Parallel()
	rule := []firewall.Rule{{Sandbox: "db", Port: 1}}
	for _, c := range []struct {
		was, is firewall.Reach
		all     bool
	}{
		{firewall.Reach{}, firewall.Reach{Default: firewall.Allow}, true},
		{firewall.Reach{Default: firewall.Public, Allow: rule}, firewall.Reach{}, true},
		{firewall.Reach{}, firewall.Reach{Default: firewall.Public}, false},
		{firewall.Reach{Default: firewall.Deny}, firewall.Reach{Default: firewall.Public}, true},
		{firewall.Reach{Default: firewall.Public}, firewall.Reach{Default: firewall.Deny}, false},
		{firewall.Reach{Default: firewall.Deny, Allow: rule}, firewall.Reach{Default: firewall.Public}, false},
		{firewall.Reach{Default: firewall.Deny, Allow: rule}, firewall.Reach{Default: firewall.Deny, Allow: rule, Log: true}, true},
	} {
		if got := reaches(&c.was, &c.is); got != c.all {
			t.Errorf("%+v, then %+v: %t", c.was, c.is, got)
		}
	}
}

// Connections end for which the set of a smaller bound may have no room.
func TestCountsAll(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		was, is int
		all     bool
	}{{1000, 1000, true}, {1000, 1001, true}, {1000, 999, false}, {0, 1000, true}, {1000, 0, true}} {
		if got := allowsAll(&firewall.Sandbox{Connections: c.was}, &firewall.Sandbox{Connections: c.is}); got != c.all {
			t.Errorf("a bound of %d, then of %d: %t", c.was, c.is, got)
		}
	}
}

// Connections end where a network is closed, and go on where one is opened.
func TestOpensAll(t *testing.T) {
	t.Parallel()
	open := firewall.Attachment{Link: "a"}
	internal, isolated := firewall.Attachment{Link: "a", Internal: true}, firewall.Attachment{Link: "a", Isolated: true}
	for _, c := range []struct {
		was, is firewall.Attachment
		want    bool
	}{
		{open, open, true},
		{open, internal, false},
		{open, isolated, false},
		{internal, open, true},
		{isolated, open, true},
		{internal, isolated, false},
		{open, firewall.Attachment{Link: "b"}, false},
	} {
		if got := opensAll(c.was, c.is); got != c.want {
			t.Errorf("%+v to %+v: %v", c.was, c.is, got)
		}
	}
}
