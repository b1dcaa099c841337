// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/namespaces"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

// In the loop: a sandbox waits for its namespace to be made, and to be free, and
// fails no start meanwhile.
func TestLoopNetwork(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	networks := map[string]namespaces.Namespace{"bt1": {NotReady: "missing"}}
	set := func(n namespaces.Namespace) {
		mu.Lock()
		defer mu.Unlock()
		networks["bt1"] = n
	}
	inLoop(t, func(o *loop.Options) {
		o.View.(*view.View).Network = func(name string) namespaces.Namespace {
			mu.Lock()
			defer mu.Unlock()
			return networks[name]
		}
	}, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.OnStart = func(context.Context, string) error {
			time.Sleep(3 * time.Second)
			return nil
		}
		w.Want(inNetns("late", "a", "bt1"))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if p := phase(w, "late"); p != "none" {
			t.Errorf("without its network it is %s", p)
		}
		set(namespaces.Namespace{Inode: 1})
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if r := w.Record("late"); r == nil || r.Phase != actual.PhaseRunning || r.Attempt != 1 || r.App().Failures != 0 {
			t.Errorf("with its network: %+v", r)
		}
	})
}

func inNetns(name, command, netns string) *desired.Entry {
	return reconciletest.Entry(name, command, func(s *desired.Spec) { s.Network = networks.Network{Mode: networks.Netns, Netns: netns} })
}
