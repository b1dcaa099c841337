// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/needs"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

// In the loop: what runs is given new files and goes on, at most once a second, and one that
// failed on the way is tried again, also when the content has changed back meanwhile.
func TestLoopRefresh(t *testing.T) {
	t.Parallel()
	const path = "/srv/value"
	var content atomic.Int64
	id := func() string { return strconv.FormatInt(content.Load(), 10) }
	events := &messages{reason: actual.EventRefreshed}
	inLoop(t, func(o *loop.Options) {
		o.Events = events
		o.Resync = 100 * time.Millisecond
		o.View.(*view.View).Files = func([]string) map[string]needs.File { return map[string]needs.File{path: {ID: id()}} }
	}, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.OnRead = func() []actual.Input { return []actual.Input{{File: path, ID: id()}} }
		w.Want(reconciletest.Entry("web", "a", func(s *desired.Spec) {
			s.Volumes = []desired.Volume{{Name: "v", MountPath: "/v", Config: &desired.FileSet{Files: map[string]string{"f": path}, OnChange: desired.OnChangeSignal}}}
		}))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		before := w.Record("web")
		for range 40 {
			content.Add(1)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		r := w.Record("web")
		if r.Refresh == nil || r.Refresh.Count < 4 || r.Refresh.Count > 6 || r.Inputs[0].ID != id() || *r.Sentry != *before.Sentry || r.Attempt != 1 {
			t.Fatalf("after 40 changes in 4 seconds: %+v, %+v", r, r.Refresh)
		}
		count := r.Refresh.Count
		w.SetHook(func(op, _, step string) error {
			if op == "refresh" && step == "signal" {
				return errors.New("its sentry does not answer")
			}
			return nil
		})
		was := content.Load()
		content.Add(1)
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if r := w.Record("web"); !slices.Equal(r.Refresh.Pending, []string{"v"}) || r.Refresh.Count != count {
			t.Errorf("before the signal: %+v", r.Refresh)
		}
		content.Store(was)
		w.SetHook(nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if r := w.Record("web"); len(r.Refresh.Pending) > 0 || r.Refresh.Count != count+1 || *r.Sentry != *before.Sentry {
			t.Errorf("in the end: %+v", r.Refresh)
		}
		if n := len(events.said); int64(n) != count+1 {
			t.Errorf("%d events: %q", n, events.said)
		}
	})
}
