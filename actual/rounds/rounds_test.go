// SPDX-License-Identifier: Apache-2.0

package rounds

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestRoundsShared: those who ask while a call runs share the next one, and its error.
func TestRoundsShared(t *testing.T) {
	t.Parallel()
	const n = 50
	var asked, failed atomic.Int64
	var all sync.WaitGroup
	calls := 0 // one runs at a time
	running := make(chan struct{})
	fails := errors.New("no room")
	r := Of(func() error {
		if calls++; calls > 1 {
			return fails
		}
		close(running)
		for asked.Load() < n {
			runtime.Gosched() // the others are about to ask
		}
		return nil
	})
	all.Go(func() {
		if err := r.Do(); err != nil {
			t.Errorf("the first call: %v", err)
		}
	})
	<-running
	for range n {
		all.Go(func() {
			asked.Add(1)
			if errors.Is(r.Do(), fails) {
				failed.Add(1)
			}
		})
	}
	all.Wait()
	if calls < 2 || calls > n/2 {
		t.Errorf("%d calls for %d that asked while the first ran", calls, n)
	}
	if failed.Load() != n {
		t.Errorf("%d of %d got the error of their call", failed.Load(), n)
	}
}

// TestRoundsBeginAfter: nobody is served by a call that began before it had asked: it
// would not have forced to disk what was renamed meanwhile.
func TestRoundsBeginAfter(t *testing.T) {
	t.Parallel()
	var clock, done atomic.Int64 // done is when the last call that has ended began
	r := Of(func() error {
		at := clock.Add(1)
		done.Store(at)
		return nil
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 2000 {
				asked := clock.Add(1)
				_ = r.Do()
				if began := done.Load(); began < asked {
					t.Errorf("asked at %d, and the last call began at %d", asked, began)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestRoundsPanic: a call that panics is a success for none of those who share it, also
// where the panic is recovered from; the next call is as usual.
func TestRoundsPanic(t *testing.T) {
	t.Parallel()
	const n = 8
	var asked, told atomic.Int64
	var all sync.WaitGroup
	calls := 0 // one runs at a time
	running := make(chan struct{})
	r := Of(func() error {
		if calls++; calls > 1 {
			panic("out of range")
		}
		close(running)
		for asked.Load() < n {
			runtime.Gosched()
		}
		return nil
	})
	do := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		return r.Do()
	}
	all.Go(func() { _ = do() })
	<-running
	for range n {
		all.Go(func() {
			asked.Add(1)
			if do() != nil {
				told.Add(1)
			}
		})
	}
	all.Wait()
	if told.Load() != n {
		t.Errorf("%d of %d were told that nothing was done for them", told.Load(), n)
	}
	if do() == nil {
		t.Error("a call after the panic is not made")
	}
}
