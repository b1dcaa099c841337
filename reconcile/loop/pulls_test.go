// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

const (
	refA = "docker.io/library/a:1"
	refB = "docker.io/library/b:1"
	refZ = "docker.io/library/z:1"
)

// digest is one that is told from others by a character.
func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func imageEntry(name, ref string, policy imageref.PullPolicy, change func(*desired.Spec)) *desired.Entry {
	return reconciletest.Entry(name, "run", func(s *desired.Spec) {
		s.Root = desired.Root{Image: &desired.ImageRoot{Ref: ref, PullPolicy: policy}}
		s.TerminationGracePeriod = new(scalar.Duration)
		if change != nil {
			change(s)
		}
	})
}

// pulling is a loop over a world, in a bubble.
type pulling struct {
	t *testing.T
	*reconciletest.World

	mu       sync.Mutex // the loop writes what follows
	statuses []reconcile.Status
	progress reconcile.Progress
}

// seen is what the last pass made of everything.
func (p *pulling) seen() []reconcile.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.statuses
}

// published is what the loop published last.
func (p *pulling) published() reconcile.Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.progress
}

// inPulls runs a test in a bubble, and holds the world to its contract.
func inPulls(t *testing.T, workers int, test func(p *pulling)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pulling{t: t, World: reconciletest.New()}
		l := loop.New(loop.Options{
			View:     &view.View{Source: p, Observer: p, Image: func(_ context.Context, ref string) string { return p.FindImage(ref) }, Policy: reconcile.DefaultPolicy()},
			Launcher: p, Puller: p, Requests: p, Workers: workers, Wakes: []<-chan struct{}{p.Changes()},
			OnPass: func(in reconcile.Input, plan reconcile.Plan) {
				statuses := reconcile.Statuses(in, plan)
				p.mu.Lock()
				defer p.mu.Unlock()
				p.statuses = statuses
			},
			// What other programs read must be readable.
			Publish: func(progress reconcile.Progress) error {
				b, err := json.Marshal(progress)
				var read reconcile.Progress
				if err == nil {
					err = json.Unmarshal(b, &read)
				}
				p.mu.Lock()
				defer p.mu.Unlock()
				p.progress = read
				return err
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		test(p)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := p.Breaches(); err != nil {
			t.Error(err)
		}
	})
}

// after lets time pass.
func (p *pulling) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// runs checks which image a sandbox runs, "" for none.
func (p *pulling) runs(name, want string) {
	p.t.Helper()
	got := ""
	if rec := p.Record(name); rec != nil && rec.Phase == actual.PhaseRunning && rec.App().Image != nil {
		got = rec.App().Image.Digest
	}
	if got != want {
		p.t.Errorf("%s runs %q, expected %q", name, got, want)
	}
}

func (p *pulling) pulled(want int) {
	p.t.Helper()
	if got := p.Pulls(); len(got) != want {
		p.t.Errorf("%d pulls, expected %d: %+v", len(got), want, got)
	}
}

func (p *pulling) ready(name string) *reconcile.Condition {
	statuses := p.seen()
	i := slices.IndexFunc(statuses, func(s reconcile.Status) bool { return s.Name == name })
	if i < 0 {
		p.t.Fatalf("no status of %s", name)
	}
	return statuses[i].Condition(reconcile.CondReady)
}

// One pull serves every sandbox of an image, and each starts from it.
func TestPullOnce(t *testing.T) {
	t.Parallel()
	inPulls(t, 4, func(p *pulling) {
		p.Publish(refA, digest("a"))
		for i := range 6 {
			p.Want(imageEntry(fmt.Sprintf("s%02d", i), refA, "", nil))
		}
		p.after(time.Minute)
		for i := range 6 {
			p.runs(fmt.Sprintf("s%02d", i), digest("a"))
		}
		p.pulled(1)
		if left := p.published(); len(left.Pulls)+len(left.Pulled)+len(left.PullRetries) > 0 {
			t.Errorf("it remembers %+v", left)
		}
	})
}

// A tag that was moved is followed by a change of the spec, and by a restart that
// somebody asks for if the policy is Always: never because an application has ended.
func TestMovedTag(t *testing.T) {
	t.Parallel()
	for policy, follows := range map[imageref.PullPolicy]bool{imageref.PullIfNotPresent: false, imageref.PullAlways: true} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			inPulls(t, 2, func(p *pulling) {
				p.Publish(refA, digest("a"))
				p.Want(imageEntry("web", refA, policy, nil))
				p.after(time.Minute)
				p.runs("web", digest("a"))
				p.Publish(refA, digest("b"))
				p.Kill("web", "sentry", 1)
				p.after(time.Minute)
				p.runs("web", digest("a"))
				p.pulled(1)
				p.Reboot()
				p.after(time.Minute)
				p.runs("web", digest("a"))
				// Another sandbox has the store know the new one.
				p.Want(imageEntry("other", refA, imageref.PullAlways, nil))
				p.after(time.Minute)
				p.runs("other", digest("b"))
				p.runs("web", digest("a"))
				s := p.seen()
				i := slices.IndexFunc(s, func(s reconcile.Status) bool { return s.Name == "web" })
				if !slices.ContainsFunc(s[i].Warnings, func(w actual.Warning) bool {
					return w.Reason == actual.WarningImageMoved && strings.Contains(w.Message, digest("b"))
				}) {
					t.Errorf("nothing tells that the tag was moved: %+v", s[i].Warnings)
				}
				p.Request(actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "r1"})
				p.after(time.Minute)
				want := digest("a")
				if follows {
					want = digest("b")
				}
				p.runs("web", want)
				// A restart that somebody asked for is not asked for again.
				p.Publish(refA, digest("c"))
				p.Kill("web", "gofer", -1)
				p.after(time.Minute)
				p.runs("web", want)
				p.Want(imageEntry("web", refA, policy, func(s *desired.Spec) { s.Args = []string{"x"} }))
				p.after(time.Minute)
				if want = digest("b"); follows {
					want = digest("c")
				}
				p.runs("web", want)
			})
		})
	}
}

// A pull that lasts, or whose registry does not answer, keeps no worker from a start,
// and what runs of the previous image is not disturbed before it is done.
func TestSlowPull(t *testing.T) {
	t.Parallel()
	inPulls(t, 1, func(p *pulling) {
		p.Publish(refA, digest("a"))
		p.Publish(refB, digest("b"))
		p.Want(imageEntry("web", refA, "", nil))
		p.after(time.Minute)
		release := make(chan struct{})
		p.OnPull = func(ctx context.Context, r imageref.PullRequest, report func(operation.PullStep)) error {
			for i := 0; ; i++ {
				report(operation.PullStep{Text: fmt.Sprintf("fetching %d %%", i)})
				select {
				case <-release:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(10 * time.Second):
				}
			}
		}
		p.Want(imageEntry("web", refB, "", nil))
		// More than there are places, which other pulls get all the same.
		for i := range 5 {
			p.Want(imageEntry(fmt.Sprintf("hung%d", i), fmt.Sprintf("docker.io/library/h:%d", i), "", nil))
		}
		p.Want(reconciletest.Entry("plain", "run", nil))
		p.after(5 * time.Second)
		if rec := p.Record("plain"); rec == nil || rec.Phase != actual.PhaseRunning {
			t.Errorf("a start waits for a pull: %+v", rec)
		}
		p.after(2 * time.Minute)
		p.runs("web", digest("a"))
		if c := p.ready("web"); c.Status != reconcile.False || c.Reason != actual.ReasonSpecChanged {
			t.Errorf("%+v", c)
		}
		if c := p.ready("hung0"); c.Reason != actual.ReasonPulling || !strings.Contains(c.Message, "pulling docker.io/library/h:0: fetching 1") {
			t.Errorf("%+v", c)
		}
		p.pulled(7)
		// It ends, and is not started again from the old image meanwhile.
		p.Kill("web", "sentry", 1)
		p.after(time.Minute)
		p.runs("web", "")
		close(release)
		p.after(time.Minute)
		p.runs("web", digest("b"))
	})
}

// Whatever other pulls do, one that is due begins after each other at most once.
func TestPullsFair(t *testing.T) {
	t.Parallel()
	hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	lasts := func(d time.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(d):
				return errors.New("connection reset")
			}
		}
	}
	for name, c := range map[string]struct {
		crowd  int
		others func(context.Context) error
		within time.Duration
	}{
		"they fail at once":     {24, lasts(0), time.Minute},
		"they fail slowly":      {40, lasts(25 * time.Second), 10 * time.Minute},
		"they hang for a while": {24, lasts(5 * time.Minute), 30 * time.Minute},
		"they hang":             {24, hangs, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inPulls(t, 2, func(p *pulling) {
				p.OnPull = func(ctx context.Context, r imageref.PullRequest, _ func(operation.PullStep)) error {
					if r.Ref == refZ {
						return nil
					}
					return c.others(ctx)
				}
				for i := range c.crowd {
					p.Want(imageEntry(fmt.Sprintf("s%02d", i), fmt.Sprintf("docker.io/library/a:%02d", i), "", nil))
				}
				p.after(10 * time.Minute)
				p.Publish(refZ, digest("a"))
				before := len(p.Pulls())
				p.Want(imageEntry("z", refZ, "", nil))
				p.after(c.within)
				p.runs("z", digest("a"))
				seen := map[string]int{}
				for _, r := range p.Pulls()[before:] {
					if r.Ref == refZ {
						break
					}
					if seen[r.Ref]++; seen[r.Ref] == 2 {
						t.Errorf("%s was begun twice before", r.Ref)
					}
				}
				// Nobody is left out: those that hang, too.
				p.after(2 * time.Hour)
				all := map[string]int{}
				for _, r := range p.Pulls() {
					all[r.Ref]++
				}
				for i := range c.crowd {
					if ref := fmt.Sprintf("docker.io/library/a:%02d", i); all[ref] < 2 {
						t.Errorf("%s was begun %d times", ref, all[ref])
					}
				}
			})
		})
	}
}

// Pulls that do not end when they are told to, as the disk of an archive does not answer,
// keep no turn from others: whether their turn was over, or nobody needs them any more.
func TestPullsFairBesideStuck(t *testing.T) {
	t.Parallel()
	for name, stuck := range map[string]struct {
		pulls   int
		removed bool
	}{
		"one": {1, false}, "several": {5, false}, "all but one": {15, false}, "one of a removed sandbox": {1, true}, "several of removed ones": {5, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inPulls(t, 2, func(p *pulling) {
				mended := make(chan struct{})
				p.OnPull = func(ctx context.Context, r imageref.PullRequest, _ func(operation.PullStep)) error {
					if r.Ref == refZ {
						return nil
					}
					<-ctx.Done()
					if strings.Contains(r.Ref, "stuck") {
						<-mended
					}
					return ctx.Err()
				}
				for i := range stuck.pulls {
					p.Want(imageEntry(fmt.Sprintf("a%02d", i), fmt.Sprintf("docker.io/library/stuck:%02d", i), "", nil))
				}
				p.after(5 * time.Minute)
				for i := range 16 - stuck.pulls { // all places are taken
					p.Want(imageEntry(fmt.Sprintf("s%02d", i), fmt.Sprintf("docker.io/library/hangs:%02d", i), "", nil))
				}
				if stuck.removed {
					p.after(time.Minute)
					for i := range stuck.pulls {
						p.Unwant(fmt.Sprintf("a%02d", i))
					}
				}
				p.after(15 * time.Minute)
				p.Publish(refZ, digest("a"))
				p.Want(imageEntry("z", refZ, "", nil))
				// It waits alone: those that are stuck are told first, and then another one.
				p.after(10 * time.Minute)
				p.runs("z", digest("a"))
				close(mended)
				p.after(time.Minute)
			})
		})
	}
}

// A pull that lasts is not ended as long as no other waits for its place.
func TestPullLasts(t *testing.T) {
	t.Parallel()
	inPulls(t, 2, func(p *pulling) {
		p.OnPull = func(ctx context.Context, _ imageref.PullRequest, _ func(operation.PullStep)) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(9 * time.Hour):
				return nil
			}
		}
		const slow = 6
		for i := range slow {
			ref := fmt.Sprintf("docker.io/library/a:%02d", i)
			p.Publish(ref, digest("a"))
			p.Want(imageEntry(fmt.Sprintf("s%02d", i), ref, "", nil))
		}
		p.after(10 * time.Hour)
		for i := range slow {
			p.runs(fmt.Sprintf("s%02d", i), digest("a"))
		}
		p.pulled(slow)
	})
}

// A pull is cancelled when its manifest goes, changes or is suspended; not when another
// sandbox wants it too, nor when its directory can't be relied on.
func TestPullCancelled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change    func(p *pulling)
		cancelled bool
	}{
		"removed": {func(p *pulling) { p.Unwant("web") }, true},
		"other":   {func(p *pulling) { p.Want(imageEntry("web", refB, "", nil)) }, true},
		"suspended": {func(p *pulling) {
			p.Want(imageEntry("web", refA, "", func(s *desired.Spec) { s.Suspend = true }))
		}, true},
		"host root": {func(p *pulling) { p.Want(reconciletest.Entry("web", "run", nil)) }, true},
		"changed": {func(p *pulling) {
			p.Want(imageEntry("web", refA, "", func(s *desired.Spec) { s.Args = []string{"x"} }))
		}, false},
		"shared":           {func(p *pulling) { p.Want(imageEntry("two", refA, "", nil)); p.after(time.Second); p.Unwant("web") }, false},
		"not complete":     {func(p *pulling) { p.SetComplete(false) }, false},
		"another policy":   {func(p *pulling) { p.Want(imageEntry("web", refA, imageref.PullAlways, nil)) }, false},
		"a missing second": {func(p *pulling) { p.SetComplete(false); p.after(time.Second); p.SetComplete(true) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inPulls(t, 2, func(p *pulling) {
				p.Publish(refA, digest("a"))
				var ended error
				release := make(chan struct{})
				p.OnPull = func(ctx context.Context, r imageref.PullRequest, _ func(operation.PullStep)) error {
					if r.Ref != refA {
						return nil
					}
					select {
					case <-ctx.Done():
						ended = context.Cause(ctx)
						return ctx.Err()
					case <-release:
						return nil
					}
				}
				p.Want(imageEntry("web", refA, "", nil))
				p.after(5 * time.Second)
				c.change(p)
				p.after(time.Minute)
				if (ended != nil) != c.cancelled {
					t.Errorf("it ended with %v", ended)
				}
				p.SetComplete(true)
				close(release)
				p.after(time.Minute)
				if left := p.published(); len(left.Pulls)+len(left.Pulled) > 0 {
					t.Errorf("it remembers %+v", left)
				}
			})
		})
	}
}

// A pull that fails is tried again, less and less often, and says why; a new manifest
// and a restart that somebody asks for are tried at once.
func TestPullFails(t *testing.T) {
	t.Parallel()
	inPulls(t, 2, func(p *pulling) {
		p.Publish(refA, digest("a"))
		p.Want(imageEntry("web", refA, "", nil))
		p.after(time.Minute)
		var up atomic.Bool
		p.OnPull = func(context.Context, imageref.PullRequest, func(operation.PullStep)) error {
			if up.Load() {
				return nil
			}
			return errors.New("connection refused")
		}
		p.Want(imageEntry("web", refB, "", nil))
		p.after(4 * time.Second)
		p.pulled(2)
		p.runs("web", digest("a"))
		s := p.seen()[0]
		if c := s.Condition(reconcile.CondReconciling); c.Status != reconcile.True || c.Reason != actual.ReasonPullFailed || !strings.Contains(c.Message, "connection refused") || s.NextRetry.IsZero() {
			t.Errorf("%+v, next %s", c, s.NextRetry)
		}
		p.after(10 * time.Hour)
		if n := len(p.Pulls()); n < 100 || n > 140 {
			t.Errorf("%d pulls in ten hours", n)
		}
		before := len(p.Pulls())
		p.Request(actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "r1"})
		p.after(time.Second)
		p.pulled(before + 1)
		up.Store(true)
		p.after(6 * time.Minute) // there is no such image
		if c := p.ready("web"); c.Status != reconcile.False {
			t.Errorf("%+v", c)
		}
		if c := p.seen()[0].Condition(reconcile.CondReconciling); c.Reason != actual.ReasonImageNotFound {
			t.Errorf("%+v", c)
		}
		p.runs("web", digest("a"))
		p.Publish(refB, digest("b"))
		p.after(6 * time.Minute)
		p.runs("web", digest("b"))
		if left := p.published().PullRetries; len(left) > 0 {
			t.Errorf("it remembers %+v", left)
		}
	})
}

// What is on record is fetched again if the store has lost it, and nothing else.
func TestPullRecorded(t *testing.T) {
	t.Parallel()
	inPulls(t, 2, func(p *pulling) {
		p.Publish(refA, digest("a"))
		p.Want(imageEntry("web", refA, imageref.PullAlways, nil))
		p.after(time.Minute)
		p.Publish(refA, digest("b"))
		pinned := strings.TrimSuffix(refA, "") + "@" + digest("a")
		p.Publish(pinned, digest("a"))
		p.DropImage(digest("a"))
		p.Kill("web", "sentry", 1)
		p.after(time.Minute)
		p.runs("web", digest("a"))
		if got := p.Pulls(); len(got) != 2 || got[1].Ref != pinned || got[1].Policy == imageref.PullAlways {
			t.Errorf("%+v", got)
		}
	})
}

// With Never nobody is asked: somebody brings the image.
func TestPullNever(t *testing.T) {
	t.Parallel()
	inPulls(t, 2, func(p *pulling) {
		p.Publish(refA, digest("a"))
		p.Want(imageEntry("web", refA, imageref.PullNever, nil))
		p.after(time.Minute)
		p.runs("web", "")
		if c := p.ready("web"); c.Reason != actual.ReasonImageNotFound || !strings.Contains(c.Message, "pullPolicy is Never") {
			t.Errorf("%+v", c)
		}
		p.pulled(0)
		if _, err := p.Pull(t.Context(), imageref.PullRequest{Ref: refA}, nil); err != nil {
			t.Fatal(err)
		}
		p.after(5 * time.Second)
		p.runs("web", digest("a"))
	})
}

// A digest that the author wants is what runs, wherever the tag points.
func TestPullPinned(t *testing.T) {
	t.Parallel()
	inPulls(t, 2, func(p *pulling) {
		want := func(s *desired.Spec) { s.Root.Image.Digest = digest("a") }
		p.Publish(refA+"@"+digest("a"), digest("a"))
		p.Publish(refA, digest("b"))
		p.Want(imageEntry("web", refA, "", want))
		p.Publish("oci:/l", digest("b"))
		p.Want(imageEntry("local", "oci:/l", "", want))
		p.after(time.Minute)
		p.runs("web", digest("a"))
		p.runs("local", digest("a")) // it is in the store
		p.DropImage(digest("a"))
		p.Want(imageEntry("wrong", "oci:/l", "", func(s *desired.Spec) { want(s); s.Args = []string{"x"} }))
		p.after(time.Minute)
		p.runs("wrong", "")
		if c := p.ready("wrong"); c.Reason != actual.ReasonPullFailed || !strings.Contains(c.Message, "it has the digest") {
			t.Errorf("%+v", c)
		}
	})
}

// A store that loses what was fetched is not asked without end.
func TestPullLost(t *testing.T) {
	t.Parallel()
	inPulls(t, 2, func(p *pulling) {
		p.Publish(refA, digest("a"))
		p.OnPull = func(context.Context, imageref.PullRequest, func(operation.PullStep)) error {
			time.AfterFunc(time.Millisecond, func() { p.DropImage(digest("a")) })
			time.Sleep(time.Millisecond)
			return nil
		}
		p.Took = time.Second
		for i := range 3 {
			p.Want(imageEntry(fmt.Sprintf("s%d", i), refA, "", nil))
		}
		p.DropImage(digest("a"))
		p.after(time.Minute)
		if n := len(p.Pulls()); n > 10 {
			t.Errorf("%d pulls in a minute", n)
		}
	})
}

// A disk without room is not filled by pulls.
func TestPullNoRoom(t *testing.T) {
	t.Parallel()
	e := imageEntry("web", refA, "", nil)
	in := reconcile.Input{
		Desired: &desired.Snapshot{Complete: true, Entries: []desired.Entry{*e}}, Actual: &actual.Snapshot{DiskFull: "no room"}, Now: time.Unix(1000, 0),
	}
	plan := reconcile.Compute(in)
	if len(plan.Pulls)+len(plan.Actions) > 0 || len(plan.Delayed) != 1 || plan.Delayed[0].Reason != actual.ReasonDiskPressure || plan.Wake.IsZero() {
		t.Errorf("%+v", plan)
	}
	in.Actual.DiskFull = ""
	if plan = reconcile.Compute(in); len(plan.Pulls) != 1 || plan.Pulls[0].Ref != refA {
		t.Errorf("%+v", plan)
	}
}

// The daemon ends while an image is fetched: nothing is waited for, and the next one
// fetches it.
func TestPullShutdown(t *testing.T) {
	t.Parallel()
	inPulls(t, 2, func(p *pulling) {
		p.Publish(refA, digest("a"))
		p.OnPull = func(ctx context.Context, _ imageref.PullRequest, _ func(operation.PullStep)) error {
			<-ctx.Done()
			return ctx.Err()
		}
		p.Want(imageEntry("web", refA, "", nil))
		p.after(time.Second)
		p.pulled(1)
	})
}
