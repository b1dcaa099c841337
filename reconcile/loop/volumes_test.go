// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/declared"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

// volumes are a world with named volumes, some of which can't be made.
type volumes struct {
	*reconciletest.World
	mu       sync.Mutex
	docs     desired.Objects
	found    map[string]declared.Found
	fails    map[string]int // tries that fail, -1 for all
	tries    map[string]int
	together int
	last     reconcile.Plan
}

func (v *volumes) Load(ctx context.Context) (*desired.Snapshot, error) {
	s, err := v.World.Load(ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	s.Objects = v.docs
	return s, err
}

func (v *volumes) look(names []string) map[string]declared.Found {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[string]declared.Found{}
	for _, n := range names {
		out[n] = v.found[n]
	}
	return out
}

func (v *volumes) Declare(_ context.Context, a *declared.Action) error {
	v.mu.Lock()
	v.together++
	v.tries[a.Name]++
	n, fails, together := v.tries[a.Name], v.fails[a.Name], v.together
	v.mu.Unlock()
	time.Sleep(time.Millisecond)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.together--
	switch {
	case together > 1:
		panic("two at once")
	case fails < 0, n <= fails:
		return errors.New("no room on the disk")
	case a.Name == "panics" && n == 1:
		panic("a mistake")
	}
	v.found[a.Name] = declared.Found{Exists: true, Size: a.Size}
	return nil
}

// declare has documents say what volumes there are, with their sizes in MiB.
func (v *volumes) declare(t *testing.T, sizes map[string]int) {
	t.Helper()
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		size := sizes[name]
		fmt.Fprintf(&text, "---\napiVersion: %s\nkind: Volume\nmetadata: {name: %s}\n", desired.APIVersion, name)
		if size > 0 {
			fmt.Fprintf(&text, "spec: {size: %dMi}\n", size)
		}
	}
	docs, problems := desired.Decode("v.yaml", []byte(text.String()))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	v.mu.Lock()
	v.docs = nil
	for _, d := range docs {
		v.docs = append(v.docs, desired.Object{Object: d.Object, Declared: d.Declared})
	}
	v.mu.Unlock()
	v.SetComplete(true) // and wakes the loop
}

// Hundreds of volumes that are made, or that can't be made, do not take a pass each: each pass
// looks at all of them.
func TestManyVolumesFewPasses(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]int{"made": 0, "refused": -1} {
		synctest.Test(t, func(t *testing.T) {
			v := &volumes{World: reconciletest.New(), found: map[string]declared.Found{}, fails: map[string]int{}, tries: map[string]int{}}
			passes := 0
			l := loop.New(loop.Options{
				View:     &view.View{Source: v, Observer: v, Volumes: v.look, Policy: reconcile.DefaultPolicy()},
				Launcher: v, Volumes: v, Requests: v, Wakes: []<-chan struct{}{v.Changes()},
				OnPass: func(reconcile.Input, reconcile.Plan) { passes++ },
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Run(ctx) }()
			const many = 400
			sizes := map[string]int{}
			for i := range many {
				n := fmt.Sprintf("v%d", i)
				sizes[n], v.fails[n] = 0, fails
			}
			v.declare(t, sizes)
			time.Sleep(time.Minute)
			synctest.Wait()
			if passes > 40 {
				t.Errorf("%s: %d passes in a minute", name, passes)
			}
			if len(v.tries) != many {
				t.Errorf("%s: %d were tried", name, len(v.tries))
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// Volumes are made for their documents, one at a time, and changed with them. One that can't be
// made is tried again later and later, and keeps no other one waiting; the plan has it.
func TestVolumesDeclared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &volumes{World: reconciletest.New(), found: map[string]declared.Found{}, fails: map[string]int{"a": -1, "b": 2}, tries: map[string]int{}}
		l := loop.New(loop.Options{
			View:     &view.View{Source: v, Observer: v, Volumes: v.look, Policy: reconcile.DefaultPolicy()},
			Launcher: v, Volumes: v, Requests: v, Wakes: []<-chan struct{}{v.Changes()},
			OnPass: func(_ reconcile.Input, plan reconcile.Plan) {
				v.mu.Lock()
				defer v.mu.Unlock()
				v.last = plan
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		is := func(want map[string]int) {
			t.Helper()
			v.mu.Lock()
			defer v.mu.Unlock()
			got := map[string]int{}
			for name, f := range v.found {
				got[name] = int(f.Size >> 20)
			}
			if !maps.Equal(got, want) {
				t.Errorf("%v, expected %v", got, want)
			}
		}
		v.declare(t, map[string]int{"a": 0, "b": 0, "c": 0, "d": 5, "panics": 0})
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		is(map[string]int{"c": 0, "d": 5})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		is(map[string]int{"b": 0, "c": 0, "d": 5, "panics": 0})
		v.declare(t, map[string]int{"a": 0, "c": 7, "d": 2})
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		is(map[string]int{"b": 0, "c": 7, "d": 2, "panics": 0})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		v.mu.Lock()
		tries, later := v.tries["a"], v.last.VolumesLater
		v.mu.Unlock()
		if tries < 8 || tries > 20 || len(later) != 1 || later[0].Why != "no room on the disk" {
			t.Errorf("%d tries, %+v", tries, later)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
