// SPDX-License-Identifier: Apache-2.0

package reconciletest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
)

// Operations are those of reconcile.Launcher.
type Operations interface {
	Create(ctx context.Context, e *desired.Entry, restart *actual.Request, image string) error
	Resume(ctx context.Context, name string, start bool, end actual.Ending) error
	Destroy(ctx context.Context, name string, end actual.Ending) error
	Remove(ctx context.Context, name string, end actual.Ending) (*actual.Record, error)
	Forget(ctx context.Context, name string) error
	Retire(ctx context.Context, name string) error
	Refresh(ctx context.Context, e *desired.Entry, volumes []string) error
}

// Host is what the contract of reconcile.Launcher and Observer is tried on.
type Host struct {
	Operations
	Observe func(ctx context.Context) (*actual.Snapshot, error)
	// Entry makes a manifest that the host can run; variants have different
	// specs. Bad makes one that it can't.
	Entry func(name, variant string) *desired.Entry
	Bad   func(name string) *desired.Entry
	// Kill kills a process of a sandbox ("sentry" or "gofer") and returns when
	// it is dead.
	Kill func(name, what string)
	// Check is called at the end: what is there that should not be.
	Check func() error
}

// Conformance holds a launcher and its observer to their contract. newHost
// makes a host with nothing on it; each part gets its own.
func Conformance(t *testing.T, newHost func(t *testing.T) *Host) {
	for name, part := range map[string]func(*testing.T, *conformance){
		"life": life, "over a live one": overLive, "removed": removed, "edited": edited, "forgotten": forgotten, "retired": retired, "sentry dies": dies("sentry"), "gofer dies": dies("gofer"),
		"refused": refused, "cancelled": cancelled, "reason gone": reasonGone, "daemon ends": daemonEnds, "many": many, "restart token": token,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			c := &conformance{t: t, h: h}
			part(t, c)
			if err := h.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

type conformance struct {
	t *testing.T
	h *Host
}

func (c *conformance) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// look returns one sandbox, nil if it is on no record.
func (c *conformance) look(name string) *actual.Observed {
	c.t.Helper()
	s, err := c.h.Observe(c.t.Context())
	c.must(err)
	for i := range s.Sandboxes {
		if s.Sandboxes[i].Record.Name == name {
			return &s.Sandboxes[i]
		}
	}
	return nil
}

func (c *conformance) running(name string) *actual.Record {
	c.t.Helper()
	o := c.look(name)
	if o == nil || o.Record.Phase != actual.PhaseRunning || o.Sentry != process.Alive || o.Gofer != process.Alive {
		c.t.Fatalf("%s is not running: %+v", name, o)
	}
	return o.Record
}

func (c *conformance) stopped() *actual.Record {
	c.t.Helper()
	o := c.look("web")
	if o == nil || o.Record.Phase != actual.PhaseStopped || o.Sentry != process.None || o.Gofer != process.None || len(o.Record.Cgroups) > 0 {
		c.t.Fatalf("it is not stopped: %+v", o)
	}
	return o.Record
}

func (c *conformance) create(variant string) {
	c.t.Helper()
	c.must(c.h.Create(c.t.Context(), c.h.Entry("web", variant), nil, ""))
}

var stop = actual.Ending{Reason: actual.ReasonRestartRequested, StopSignal: "SIGTERM", Grace: 5 * time.Second}

func (c *conformance) destroy() {
	c.t.Helper()
	c.must(c.h.Destroy(c.t.Context(), "web", stop))
}

func (c *conformance) remove() {
	c.t.Helper()
	c.destroy()
	c.must(c.h.Forget(c.t.Context(), "web"))
	if o := c.look("web"); o != nil {
		c.t.Errorf("it is still on record: %+v", o.Record)
	}
}

func life(t *testing.T, c *conformance) {
	c.create("a")
	r := c.running("web")
	if r.Attempt != 1 || r.Generation != 1 || r.UID == "" || r.App().Restarts != 0 || r.App().StartedAt.IsZero() {
		t.Errorf("created: %+v", r)
	}
	if err := c.h.Forget(t.Context(), "web"); err == nil {
		t.Error("a running sandbox was forgotten")
	}
	c.running("web")
	c.destroy()
	s := c.stopped()
	if s.UID != r.UID || s.App().LastExit == nil || s.Ending == nil || s.Ending.Reason != actual.ReasonRestartRequested {
		t.Errorf("stopped: %+v", s)
	}
	c.destroy() // again: nothing to do
	if err := c.h.Refresh(t.Context(), c.h.Entry("web", "a"), nil); err == nil || c.stopped().Refresh != nil {
		t.Errorf("refreshed while it is stopped: %v", err)
	}
	c.create("a")
	r2 := c.running("web")
	if r2.UID != r.UID || r2.Attempt != 2 || r2.Generation != 1 || r2.App().Restarts != 1 {
		t.Errorf("created again: %+v", r2)
	}
	c.remove()
	c.must(c.h.Forget(t.Context(), "web"))
	c.destroy() // and what is not there is destroyed
}

// What is retired stays on record, as often as that is done, and can be created again.
func retired(t *testing.T, c *conformance) {
	c.create("a")
	r := c.running("web")
	if r.App().Active == nil {
		t.Errorf("since when it is active is not on record: %+v", r.App())
	}
	end := stop
	end.Reason, end.Containers = actual.ReasonDeadlineExceeded, []actual.ContainerEnding{{Name: actual.AppName, Completed: true}}
	c.must(c.h.Destroy(t.Context(), "web", end))
	if s := c.stopped(); !s.App().Completed || s.App().Finished == nil || s.App().LastExit.Reason != actual.ReasonDeadlineExceeded {
		t.Errorf("its time was over: %+v", s.App())
	}
	// A stop of what is stopped says something else about it.
	end.Reason = actual.ReasonExpired
	c.must(c.h.Destroy(t.Context(), "web", end))
	for range 2 {
		c.must(c.h.Retire(t.Context(), "web"))
		if s := c.stopped(); !s.Retired || s.Ending.Reason != actual.ReasonExpired || s.UID != r.UID {
			t.Errorf("retired: %+v", s)
		}
	}
	c.create("b")
	if r2 := c.running("web"); r2.Retired || r2.UID != r.UID || r2.Attempt != 2 {
		t.Errorf("created again: %+v", r2)
	}
	c.remove()
}

// What is removed in one operation is what is destroyed and then forgotten, whatever
// it was before, and leaves a name that can be had again.
func removed(t *testing.T, c *conformance) {
	end := actual.Ending{Reason: actual.ReasonManifestRemoved}
	for what, prepare := range map[string]func(){
		"running":                func() { c.create("a") },
		"its sentry is dead":     func() { c.create("a"); c.h.Kill("web", "sentry") },
		"its gofer is dead":      func() { c.create("a"); c.h.Kill("web", "gofer") },
		"stopped":                func() { c.create("a"); c.destroy() },
		"removed":                func() {},
		"created after that":     func() { c.create("b") },
		"with a grace period":    func() { c.create("a"); end.StopSignal, end.Grace = stop.StopSignal, stop.Grace },
		"started more than once": func() { c.create("a"); c.destroy(); c.create("a") },
	} {
		prepare()
		before := c.look("web")
		rec, err := c.h.Remove(t.Context(), "web", end)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if before != nil && (rec == nil || rec.UID != before.Record.UID || rec.Phase != actual.PhaseStopped || rec.App().LastExit == nil) || before == nil && rec != nil {
			t.Errorf("%s: it was removed as %+v", what, rec)
		}
		if o := c.look("web"); o != nil {
			t.Errorf("%s: it is still on record: %+v", what, o.Record)
		}
	}
}

func overLive(t *testing.T, c *conformance) {
	c.create("a")
	r := c.running("web")
	if err := c.h.Create(t.Context(), c.h.Entry("web", "b"), nil, ""); err == nil {
		t.Error("a second sandbox of the name was made")
	}
	if now := c.running("web"); now.Attempt != r.Attempt || *now.Sentry != *r.Sentry {
		t.Errorf("the first is not what it was: %+v", now)
	}
	c.remove()
}

func edited(t *testing.T, c *conformance) {
	c.create("a")
	c.destroy()
	c.create("b")
	if r := c.running("web"); r.Generation != 2 || r.SpecHash != c.h.Entry("web", "b").Hash {
		t.Errorf("edited: %+v", r)
	}
	c.remove()
}

func forgotten(t *testing.T, c *conformance) {
	c.create("a")
	first := c.running("web").UID
	c.remove()
	c.create("a")
	if r := c.running("web"); r.UID == first || r.Attempt != 1 {
		t.Errorf("after having been forgotten: %+v", r)
	}
	c.remove()
}

func dies(what string) func(*testing.T, *conformance) {
	return func(t *testing.T, c *conformance) {
		c.create("a")
		c.h.Kill("web", what)
		o := c.look("web")
		if what == "sentry" && o.Sentry != process.Dead || what == "gofer" && o.Gofer != process.Dead {
			t.Errorf("after its death: %+v", o)
		}
		c.destroy()
		c.stopped()
		c.create("a")
		if r := c.running("web"); r.Attempt != 2 {
			t.Errorf("after a death: %+v", r)
		}
		c.remove()
	}
}

func refused(t *testing.T, c *conformance) {
	if err := c.h.Create(t.Context(), c.h.Bad("web"), nil, ""); err == nil {
		t.Error("what can't run was created")
	}
	if r := c.stopped(); r.App().LastExit == nil || r.App().LastExit.Reason != actual.ReasonCreateFailed || r.App().LastExit.Message == "" || r.App().Failures != 1 {
		t.Errorf("refused: %+v %+v", r, r.App().LastExit)
	}
	c.create("a")
	if r := c.running("web"); r.Attempt != 2 || r.App().Failures != 0 {
		t.Errorf("mended: %+v", r)
	}
	c.remove()
}

func cancelled(t *testing.T, c *conformance) {
	for i := range 8 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*i)*2*time.Millisecond)
		err := c.h.Create(ctx, c.h.Entry("web", "a"), nil, "")
		cancel()
		if err != nil {
			if o := c.look("web"); o != nil && (o.Sentry == process.Alive || o.Gofer == process.Alive) {
				t.Fatalf("cancelled, and something lives: %+v", o)
			}
		}
		c.destroy()
	}
	c.create("a")
	c.running("web")
	c.remove()
}

// reasonGone: a create that is cancelled because of what somebody wants now is
// undone, and is no failure.
func reasonGone(t *testing.T, c *conformance) {
	for i := range 8 {
		ctx, cancel := operation.New(t.Context(), func() {})
		timer := time.AfterFunc(time.Duration(i*i)*2*time.Millisecond, func() { cancel(&operation.Cancelled{Reason: actual.ReasonSpecChanged}) })
		err := c.h.Create(ctx, c.h.Entry("web", "a"), nil, "")
		timer.Stop()
		cancel(nil)
		var cancelled *operation.Cancelled
		switch {
		case err == nil:
			c.running("web")
		case !errors.As(err, &cancelled):
			t.Fatalf("cancelled: %v", err)
		default:
			if o := c.look("web"); o != nil {
				if r := c.stopped(); r.App().Failures != 0 || r.App().LastExit == nil || r.App().LastExit.Reason != actual.ReasonCancelled || r.Ending == nil || r.Ending.Reason != actual.ReasonSpecChanged {
					t.Fatalf("cancelled: %+v %+v %+v", r, r.App().LastExit, r.Ending)
				}
			}
		}
		c.destroy()
	}
	c.create("b")
	c.running("web")
	c.remove()
}

// daemonEnds: a create that the end of the daemon cuts short leaves what the next
// one can go on from, and is no failure.
func daemonEnds(t *testing.T, c *conformance) {
	for i := range 8 {
		parent, end := context.WithCancelCause(t.Context())
		ctx, cancel := operation.New(parent, func() {})
		timer := time.AfterFunc(time.Duration(i*i)*2*time.Millisecond, func() { end(operation.ErrShutdown) })
		err := c.h.Create(ctx, c.h.Entry("web", "a"), nil, "")
		timer.Stop()
		end(operation.ErrShutdown)
		cancel(nil)
		if err != nil && !errors.Is(err, operation.ErrShutdown) {
			t.Fatalf("at the end of the daemon: %v", err)
		}
		if o := c.look("web"); o != nil {
			if o.Record.App().Failures != 0 || o.Record.Phase == actual.PhaseStopped {
				t.Fatalf("at the end of the daemon: %+v", o.Record)
			}
		}
		c.must(c.h.Resume(t.Context(), "web", true, actual.Ending{Reason: actual.ReasonInterrupted}))
		if c.look("web") != nil && c.look("web").Record.Phase == actual.PhaseStopped {
			c.create("a")
		} else if c.look("web") != nil {
			c.running("web")
		}
		c.destroy()
	}
	c.create("b")
	c.remove()
}

func many(t *testing.T, c *conformance) {
	var wg sync.WaitGroup
	errs := make(chan error, 12)
	each := func(f func(name string) error) {
		for i := range 4 {
			wg.Go(func() { errs <- f(fmt.Sprintf("s%d", i)) })
		}
		wg.Wait()
		for range 4 {
			c.must(<-errs)
		}
	}
	each(func(n string) error { return c.h.Create(t.Context(), c.h.Entry(n, "a"), nil, "") })
	for i := range 4 {
		c.running(fmt.Sprintf("s%d", i))
	}
	each(func(n string) error {
		return errors.Join(c.h.Destroy(t.Context(), n, stop), c.h.Forget(t.Context(), n))
	})
}

func token(t *testing.T, c *conformance) {
	c.must(c.h.Create(t.Context(), c.h.Entry("web", "a"), &actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "first"}, ""))
	if r := c.running("web"); r.RestartToken != "first" {
		t.Errorf("token: %q", r.RestartToken)
	}
	c.destroy()
	c.create("a")
	if r := c.running("web"); r.RestartToken != "first" {
		t.Errorf("the token was lost: %q", r.RestartToken)
	}
	c.remove()
}
