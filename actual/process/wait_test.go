// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// threads is how many this program has.
func threads(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	must(t, err)
	return len(entries)
}

// TestWaitThreads: a wait for a process holds no thread, so that a daemon that ends many
// sandboxes at once does not grow by one for each.
func TestWaitThreads(t *testing.T) {
	const n = 100
	_, id := child(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	before := threads(t)
	var began, all sync.WaitGroup
	began.Add(n)
	cause := errors.New("enough")
	for range n {
		all.Go(func() {
			p, err := Open(id)
			if err != nil {
				t.Error(err)
				began.Done()
				return
			}
			defer p.Close()
			began.Done()
			if err := p.Wait(ctx); !errors.Is(err, cause) {
				t.Errorf("a wait for a process that lives ends with %v", err)
			}
		})
	}
	began.Wait()
	// All of them wait once the poller has a descriptor of each.
	for deadline := time.Now().Add(30 * time.Second); openPidfds(t) < 2*n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d pidfds are open, expected %d", openPidfds(t), 2*n)
		}
	}
	if more := threads(t) - before; more > n/4 {
		t.Errorf("%d waits have started %d threads", n, more)
	}
	cancel(cause)
	all.Wait()
	if left := openPidfds(t); left >= n {
		t.Errorf("%d pidfds are left open", left)
	}
}

func openPidfds(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == "anon_inode:[pidfd]" {
			n++
		}
	}
	return n
}

// TestWaitEnds: a wait ends by the death, by its context, and at once if one of both
// was there before.
func TestWaitEnds(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(context.CancelFunc, *Handle) error{
		"death after the wait began": func(_ context.CancelFunc, p *Handle) error { return p.Signal(unix.SIGKILL) },
		"context":                    func(cancel context.CancelFunc, _ *Handle) error { cancel(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, id := child(t)
			p, err := Open(id)
			must(t, err)
			defer p.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error)
			go func() { done <- p.Wait(ctx) }()
			select {
			case err := <-done:
				t.Fatalf("the wait for a process that lives is over: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			must(t, kill(cancel, p))
			err = <-done
			if dead := p.Alive() == Dead; dead != (err == nil) {
				t.Errorf("dead %v, %v", dead, err)
			}
			if again := p.Wait(ctx); (again == nil) != (err == nil) {
				t.Errorf("first %v, again %v", err, again)
			}
		})
	}
}

// TestWaitWithoutDescriptors: where no descriptor can be opened a process is waited for
// all the same: one that was killed must not be taken for one that does not die.
func TestWaitWithoutDescriptors(t *testing.T) {
	_, id := child(t)
	p, err := Open(id)
	must(t, err)
	defer p.Close()
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) }()
	done := make(chan error)
	go func() { done <- p.Wait(t.Context()) }()
	select {
	case err := <-done:
		t.Fatalf("the wait is over: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	must(t, p.Signal(unix.SIGKILL))
	must(t, <-done)
}
