// SPDX-License-Identifier: Apache-2.0

package view_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/namespaces"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

// told is what people are told of an input: the plan and all statuses.
func told(in reconcile.Input) string {
	plan := reconcile.Compute(in)
	statuses := reconcile.Statuses(in, plan)
	out := ""
	for _, v := range []any{in.Progress, statuses, reconcile.Summarize(in, plan, statuses)} {
		b, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			panic(err)
		}
		out += string(b) + "\n"
	}
	for _, a := range plan.Actions {
		out += fmt.Sprintf("%s %s %s %s start=%v\n", a.Op, a.Name, a.Reason, a.Request.ID(), a.Start)
	}
	for _, d := range plan.Delayed {
		out += fmt.Sprintf("%s %s waits for %q until %s\n", d.Op, d.Name, d.Why, d.Until.UTC())
	}
	return out + fmt.Sprintln(plan.Cancel, plan.Wake.UTC())
}

// spy keeps what a loop was told of each input, and what it published.
type spy struct {
	view.View

	mu        sync.Mutex
	seen      string
	published []byte
	removals  []time.Time
}

func (s *spy) Gather(ctx context.Context, p reconcile.Progress, removals []time.Time) (reconcile.Input, error) {
	in, err := s.View.Gather(ctx, p, removals)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.seen = told(in)
	}
	return in, err
}

func (s *spy) publish(p reconcile.Progress) error {
	b, err := json.Marshal(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published = b
	return err
}

func (s *spy) passed(in reconcile.Input, _ reconcile.Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removals = in.Removals
}

// last is the input that the loop saw last, in words, and its removals.
func (s *spy) last() (string, []time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen, s.removals
}

func (s *spy) read() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.published
}

// trouble decides what fails, and how, by name.
type trouble struct {
	mu  sync.Mutex
	how map[string]string // operation and step, by name
}

func (f *trouble) set(name, how string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.how[name] = how
}

type permanentError struct{ error }

func (permanentError) Permanent() bool { return true }

func (f *trouble) hook(op, name, step string) error {
	f.mu.Lock()
	how := f.how[name]
	f.mu.Unlock()
	switch how {
	case op + " " + step:
		return errors.New("it will not: " + how)
	case op + " " + step + " ever":
		return permanentError{errors.New("it never will: " + how)}
	}
	return nil
}

// start makes a start last.
func (f *trouble) start(ctx context.Context, name string) error {
	f.mu.Lock()
	how := f.how[name]
	f.mu.Unlock()
	if how != "long" {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Hour):
		return nil
	}
}

// What a verb is told beside a loop is what the loop itself is told: whatever fails,
// before or after it could be recorded, is slow, was asked for, or vanished.
func TestSameInputs(t *testing.T) {
	t.Parallel()
	troubles := []string{
		"", "long", "create claim", "create claim ever", "create spawn", "create spawn ever", "create start",
		"destroy kill", "destroy release", "forget remove",
	}
	unpublished := 0 // looks at which the records alone do not tell the same
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) [4]int {
			return [4]int{
				rapid.IntRange(0, 9).Draw(rt, "what"), rapid.IntRange(0, 4).Draw(rt, "name"),
				rapid.IntRange(0, len(troubles)-1).Draw(rt, "trouble"), rapid.IntRange(1, 90).Draw(rt, "seconds"),
			}
		}), 1, 12).Draw(rt, "steps")
		var wrong string
		synctest.Test(t, func(t *testing.T) { wrong = compare(t, troubles, steps, &unpublished) })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
	if unpublished == 0 {
		t.Error("nothing was tried that only the loop knows")
	}
}

func compare(t *testing.T, troubles []string, steps [][4]int, unpublished *int) (wrong string) {
	w := reconciletest.New()
	fails := &trouble{how: map[string]string{}}
	w.SetHook(fails.hook)
	w.OnStart = fails.start
	network := func(string) namespaces.Namespace { return namespaces.Namespace{NotReady: "it is missing"} }
	s := &spy{View: view.View{Source: w, Observer: w, Network: network, Policy: reconcile.DefaultPolicy()}}
	l := loop.New(loop.Options{
		View: s, Launcher: w, Requests: w, Publish: s.publish, Wakes: []<-chan struct{}{w.Changes()},
		OnPass: s.passed,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	verb := &view.View{Source: w, Observer: w, Network: network, Policy: reconcile.DefaultPolicy()}
	for i, step := range steps {
		name := fmt.Sprintf("s%d", step[1])
		switch step[0] {
		case 0, 1, 2:
			w.Want(reconciletest.Entry(name, fmt.Sprint(i), nil))
		case 3:
			w.Unwant(name)
		case 4:
			w.Kill(name, "sentry", -1)
		case 5:
			w.Request(actual.Request{Kind: actual.RequestRestart, Name: name, Token: fmt.Sprint(i)})
		case 6:
			w.Want(reconciletest.Entry(name, fmt.Sprint(i), func(s *desired.Spec) {
				s.Network = networks.Network{Mode: networks.Netns, Netns: "n"}
			}))
		default:
			fails.set(name, troubles[step[2]])
		}
		time.Sleep(time.Duration(step[3]) * time.Second)
		synctest.Wait()
		_, removals := s.last()
		in, err := verb.Beside(ctx, s.read, removals)
		if err != nil {
			t.Error(err)
		}
		got := told(in)
		in, err = verb.Beside(ctx, func() []byte { return nil }, removals)
		if err != nil {
			t.Error(err)
		}
		without := told(in)
		l.Wake()
		synctest.Wait()
		if seen, _ := s.last(); got != seen {
			wrong = fmt.Sprintf("step %d: the verb is told\n%s\nthe loop\n%s", i, got, seen)
			break
		}
		if without != got {
			*unpublished++
		}
	}
	fails.mu.Lock()
	clear(fails.how)
	fails.mu.Unlock()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return wrong
}

// Where the daemon has said nothing that can be read, its records tell what it does.
func TestBesideWithoutProgress(t *testing.T) {
	t.Parallel()
	have := &actual.Snapshot{}
	for _, p := range []actual.Phase{actual.PhaseCreating, actual.PhaseStarting, actual.PhaseRunning, actual.PhaseStopping, actual.PhaseStopped} {
		have.Sandboxes = append(have.Sandboxes, actual.Observed{Record: &actual.Record{Name: string(p), Phase: p, Containers: []actual.Container{{Name: actual.AppName}}}})
	}
	for _, said := range []string{"", "{", "[]", `{"operations":3}`} {
		v := &view.View{Source: fixed{}, Observer: fixed{have}}
		in, err := v.Beside(t.Context(), func() []byte { return []byte(said) }, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range have.Sandboxes {
			p := have.Sandboxes[i].Record.Phase
			if _, busy := in.Operations[string(p)]; busy != (p != actual.PhaseRunning && p != actual.PhaseStopped) {
				t.Errorf("%q: %s: %v", said, p, busy)
			}
		}
	}
}

// An operation that begins or ends during a look is not taken for one that nobody
// carries out.
func TestBesideWhileItChanges(t *testing.T) {
	t.Parallel()
	web := actual.Observed{Record: &actual.Record{Name: "web", Phase: actual.PhaseStopping, Containers: []actual.Container{{Name: actual.AppName}}}}
	busy, idle := `{"operations":{"web":{"op":"destroy"}}}`, `{}`
	for name, said := range map[string][]string{
		"begins":          {idle, busy, busy},
		"ends":            {busy, idle, busy, idle, idle, idle},
		"again and again": {busy, idle, busy, idle},
	} {
		v := &view.View{Source: fixed{}, Observer: fixed{&actual.Snapshot{Sandboxes: []actual.Observed{web}}}}
		reads := 0
		in, err := v.Beside(t.Context(), func() []byte {
			reads++
			return []byte(said[min(reads, len(said))-1])
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, found := in.Operations["web"]; !found && name != "ends" || reads > 4 {
			t.Errorf("%s: operations %v after %d reads", name, in.Operations, reads)
		}
	}
}

// fixed is a world that does not change.
type fixed struct{ have *actual.Snapshot }

func (fixed) Load(context.Context) (*desired.Snapshot, error) {
	return &desired.Snapshot{Complete: true}, nil
}

func (f fixed) Observe(context.Context) (*actual.Snapshot, error) { return f.have, nil }
