// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func runtimeStore(t *testing.T, path string) *Store {
	t.Helper()
	s, err := OpenRuntimeStore(path)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// Of many that create one id at once, each through a store of its own as
// processes do, one wins.
func TestClaimLockedRace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	runtimeStore(t, path)
	const n = 200
	var wg sync.WaitGroup
	won := make(chan *SandboxLock, n)
	for range n {
		wg.Go(func() {
			s, err := OpenRuntimeStore(path)
			if err != nil {
				t.Error(err)
				return
			}
			h, err := s.ClaimLocked("Some_Id.1")
			if err == nil {
				won <- h
				err = s.Put(sample("Some_Id.1"))
			} else if errors.Is(err, fs.ErrExist) {
				err = nil
			}
			if err := errors.Join(err, s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d of %d claims won", len(won), n)
	}
	for range len(won) {
		must(t, (<-won).Release())
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	s, other := runtimeStore(t, path), runtimeStore(t, path)
	if _, err := s.LockSandbox(t.Context(), "web"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("lock of nothing: %v", err)
	}
	if _, err := s.LockSandbox(t.Context(), "../x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("lock of no name: %v", err)
	}
	h, err := s.ClaimLocked("web")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockEvery)
	defer cancel()
	if _, err := other.LockSandbox(ctx, "web"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("lock of what is locked: %v", err)
	}
	must(t, s.Put(sample("web")))
	if _, err := other.ClaimLocked("web"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("claim of what is locked: %v", err)
	}
	// The one that waits gets it when it is released.
	got := make(chan error, 1)
	go func() {
		h, err := other.LockSandbox(context.WithoutCancel(t.Context()), "web")
		if err == nil {
			err = h.Release()
		}
		got <- err
	}()
	time.Sleep(lockEvery)
	must(t, h.Release())
	must(t, <-got)
	if _, err := other.ClaimLocked("web"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("claim of a record: %v", err)
	}
	// Removed while somebody holds it: the next one does not get the old one.
	h, err = s.LockSandbox(t.Context(), "web")
	must(t, err)
	must(t, s.Remove("web"))
	again, err := other.ClaimLocked("web")
	must(t, err)
	must(t, errors.Join(h.Release(), again.Release()))
}

func TestValidID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"a": true, "A_b.c-d+e": true, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef": true,
		"": false, ".": false, "..": false, ".git": false, "-rf": false, "a/b": false, "a b": false, "a,b": false, "\u00e4": false, "+x": false,
	} {
		if got := ValidID(id); got != want {
			t.Errorf("%q: %v", id, got)
		}
	}
}
