// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

// policed is a world whose source has a policy.
type policed struct {
	*reconciletest.World
	policy atomic.Pointer[hostpolicy.Policy]
}

func (p *policed) Load(ctx context.Context) (*desired.Snapshot, error) {
	s, err := p.World.Load(ctx)
	if err != nil {
		return nil, err
	}
	out := *s
	policy := p.policy.Load()
	if policy == nil {
		return &desired.Snapshot{Reason: desired.ReasonPolicyUnusable, Message: "the policy is broken"}, nil
	}
	out.Policy = policy
	return &out, nil
}

// A policy that can't be used stops nothing and starts nothing; when it is
// mended everything goes on.
func TestLoopPolicyUnusable(t *testing.T) {
	t.Parallel()
	var p *policed
	inLoop(t, func(o *loop.Options) {
		v := o.View.(*view.View)
		p = &policed{World: v.Source.(*reconciletest.World)}
		p.policy.Store(hostPolicy(t, ""))
		v.Source, o.Resync = p, time.Second
	}, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.Want(reconciletest.Entry("a", "a", nil))
		w.Want(reconciletest.Entry("b", "a", nil))
		synctest.Wait()
		p.policy.Store(nil)
		w.Want(reconciletest.Entry("a", "changed", nil))
		w.Want(reconciletest.Entry("c", "a", nil))
		attempt := w.Record("a").Attempt
		w.Kill("b", "sentry", 1)
		time.Sleep(time.Hour)
		if a, b, c := phase(w, "a"), phase(w, "b"), phase(w, "c"); a != "Running" || b != "Stopped" || c != "none" || w.Record("a").Attempt != attempt {
			t.Errorf("a is %s, b %s, c %s", a, b, c)
		}
		p.policy.Store(hostPolicy(t, ""))
		time.Sleep(time.Hour)
		for _, n := range []string{"a", "b", "c"} {
			if got := phase(w, n); got != "Running" {
				t.Errorf("%s is %s", n, got)
			}
		}
		if w.Record("a").Attempt != attempt+1 {
			t.Errorf("a was not changed")
		}
	})
}

func hostPolicy(t testing.TB, lines string) *hostpolicy.Policy {
	t.Helper()
	p, problems := hostpolicy.Decode("policy.yaml", []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\n"+lines))
	if p == nil {
		t.Fatal(problems)
	}
	return p
}
