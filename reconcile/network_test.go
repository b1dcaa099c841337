// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"fmt"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/namespaces"
	"sandboxctl.dev/reconcile/reconciletest"
)

func inNetns(name, command, netns string) *desired.Entry {
	return reconciletest.Entry(name, command, func(s *desired.Spec) { s.Network = networks.Network{Mode: networks.Netns, Netns: netns} })
}

// has is a sandbox that runs in a network namespace.
func has(e *desired.Entry, inode uint64) actual.Observed {
	o := running(e)
	o.Record.Network = &actual.Network{Path: desired.NetnsPath(e.Sandbox.Spec.Network.Netns), Inode: inode}
	return o
}

// A sandbox is started when its network namespace is there, has an interface, and is
// nobody else's; one that runs in a namespace that was made anew is started again.
func TestPlanNetwork(t *testing.T) {
	t.Parallel()
	ready := map[string]namespaces.Namespace{"bt1": {Inode: 1}, "bt2": {Inode: 2}}
	oldOne, newOne := inNetns("old", "a", "bt1"), inNetns("new", "a", "bt1")
	stopping := func(o actual.Observed) actual.Observed {
		o.Record.Phase, o.Record.Ending = actual.PhaseStopping, &actual.Ending{Reason: actual.ReasonManifestRemoved}
		return o
	}
	freed := func(o actual.Observed) actual.Observed {
		o.Record.Network = nil
		return o
	}
	loopback := func(o actual.Observed) actual.Observed {
		o.Record.Warnings = []actual.Warning{{Reason: "NetworkUnconfigured"}}
		return o
	}
	for name, c := range map[string]struct {
		in       reconcile.Input
		networks map[string]namespaces.Namespace
		want     string
	}{
		"ready":                        {input(true, []*desired.Entry{newOne}), ready, "create new New"},
		"runs":                         {input(true, []*desired.Entry{oldOne}, has(oldOne, 1)), ready, ""},
		"not looked at":                {input(true, []*desired.Entry{newOne}), nil, "create new New"},
		"missing":                      {input(true, []*desired.Entry{newOne}), map[string]namespaces.Namespace{"bt1": {NotReady: "missing"}}, "wake; delayed new NetworkNotReady"},
		"no interface":                 {input(true, []*desired.Entry{newOne}), map[string]namespaces.Namespace{"bt1": {Inode: 1, NotReady: "none"}}, "wake; delayed new NetworkNotReady"},
		"rename":                       {input(true, []*desired.Entry{newOne}, has(oldOne, 1)), ready, "destroy old ManifestRemoved graceful; delayed new NetworkInUse"},
		"rename, the old one stops":    {input(true, []*desired.Entry{newOne}, stopping(has(oldOne, 1))), ready, "destroy old ManifestRemoved graceful; delayed new NetworkInUse"},
		"rename, the old one has died": {input(true, []*desired.Entry{newOne}, freed(stopped(oldOne, 0))), ready, "create new New; forget old ManifestRemoved"},
		"two want one":                 {input(true, []*desired.Entry{newOne, oldOne}), ready, "create new New; delayed old NetworkInUse"},
		"swap":                         {input(true, []*desired.Entry{inNetns("x", "a", "bt2"), inNetns("y", "a", "bt1")}, has(inNetns("x", "a", "bt1"), 1), has(inNetns("y", "a", "bt2"), 2)), ready, "destroy x SpecChanged graceful; destroy y SpecChanged graceful"},
		"swap, one has stopped":        {input(true, []*desired.Entry{inNetns("x", "a", "bt2"), inNetns("y", "a", "bt1")}, freed(stopped(inNetns("x", "a", "bt1"), 0)), has(inNetns("y", "a", "bt2"), 2)), ready, "destroy y SpecChanged graceful; delayed x NetworkInUse"},
		"removed below it":             {input(true, []*desired.Entry{oldOne}, has(oldOne, 1)), map[string]namespaces.Namespace{"bt1": {NotReady: "missing"}}, ""},
		"made anew":                    {input(true, []*desired.Entry{oldOne}, has(oldOne, 7)), ready, "destroy old NetworkReplaced graceful"},
		"made anew, not ready":         {input(true, []*desired.Entry{oldOne}, has(oldOne, 7)), map[string]namespaces.Namespace{"bt1": {Inode: 1, NotReady: "none"}}, ""},
		"has loopback only":            {input(true, []*desired.Entry{oldOne}, loopback(running(oldOne))), ready, "destroy old NetworkReplaced graceful"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.in.Networks = c.networks
			p := reconcile.Compute(c.in)
			got := []string{}
			if s := show(p); s != "" {
				got = append(got, s)
			}
			for _, d := range p.Delayed {
				got = append(got, fmt.Sprintf("delayed %s %s", d.Name, d.Reason))
			}
			if s := strings.Join(got, "; "); s != c.want {
				t.Errorf("got %q, expected %q", s, c.want)
			}
			for _, s := range reconcile.Statuses(c.in, p) {
				for _, d := range p.Delayed {
					if d.Name == s.Name && (s.Condition(reconcile.CondReady).Reason != d.Reason || s.Condition(reconcile.CondReady).Message != d.Why || s.Phase != reconcile.PhasePending) {
						t.Errorf("status of %s: %+v", s.Name, s)
					}
				}
			}
			if len(p.Delayed) > 0 && reconcile.Summarize(c.in, p, reconcile.Statuses(c.in, p)).Converged {
				t.Error("it is said to have converged while a sandbox waits")
			}
		})
	}
}

// A running sandbox whose namespace is gone says so.
func TestStatusNetworkGone(t *testing.T) {
	t.Parallel()
	e := inNetns("web", "a", "bt1")
	for name, n := range map[string]namespaces.Namespace{"": {Inode: 1}, "was removed": {NotReady: "missing"}, "was replaced": {Inode: 2, NotReady: "no interface"}} {
		in := input(true, []*desired.Entry{e}, has(e, 1))
		in.Networks = map[string]namespaces.Namespace{"bt1": n}
		warnings := reconcile.Statuses(in, reconcile.Compute(in))[0].Warnings
		if got := fmt.Sprint(warnings); (name == "") != (len(warnings) == 0) || !strings.Contains(got, name) {
			t.Errorf("%+v: warnings %v", n, warnings)
		}
	}
}
