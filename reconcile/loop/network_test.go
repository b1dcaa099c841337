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
	"sandboxctl.dev/reconcile"
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

// Who keeps the networks of sandboxes knows the documents of a pass before a sandbox is started
// by it: else it would be given the default route of the documents before.
func TestLoopTellsFirst(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	told := map[string]bool{}
	inLoop(t, func(o *loop.Options) {
		o.OnInput = func(in reconcile.Input) {
			time.Sleep(time.Second) // long enough for what was begun before
			mu.Lock()
			defer mu.Unlock()
			for i := range in.Desired.Entries {
				told[in.Desired.Entries[i].Sandbox.Metadata.Name] = true
			}
		}
		o.Launcher = tells{o.Launcher, func(name string) {
			mu.Lock()
			defer mu.Unlock()
			if !told[name] {
				t.Errorf("%s is started by a pass that nobody knows of", name)
			}
		}}
	}, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		for _, name := range []string{"a", "b"} {
			w.Want(reconciletest.Entry(name, "a", nil))
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if p := phase(w, name); p != "Running" {
				t.Errorf("%s is %s", name, p)
			}
		}
	})
}

// tells is a launcher that tells of each start, before anything else.
type tells struct {
	reconcile.Launcher
	started func(name string)
}

func (l tells) Create(ctx context.Context, e *desired.Entry, restart *actual.Request, image string) error {
	l.started(e.Sandbox.Metadata.Name)
	return l.Launcher.Create(ctx, e, restart, image) //nolint:wrapcheck // as it is
}

func inNetns(name, command, netns string) *desired.Entry {
	return reconciletest.Entry(name, command, func(s *desired.Spec) { s.Network = networks.Network{Mode: networks.Netns, Netns: netns} })
}
