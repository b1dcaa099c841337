// SPDX-License-Identifier: Apache-2.0

package hostmem

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAvailable(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "meminfo")
	for text, want := range map[string]uint64{
		"MemTotal:       24684096 kB\nMemAvailable:   23536856 kB\n": 23536856 << 10,
		"MemAvailable: 0 kB\n":  0,
		"MemAvailable: 12 MB\n": 1,
		"MemAvailable: -1 kB\n": 1,
		"MemTotal: 5 kB\n":      1,
		"":                      1,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := available(file)
		if want == 1 { // an error
			if err == nil {
				t.Errorf("%q: %d", text, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	if _, err := available(file + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if n, err := Available(); err != nil || n < 1<<20 {
		t.Errorf("this host: %d, %v", n, err)
	}
}

// The end of the context is the end of the watch, on a kernel that tells of pressure and on
// one that does not.
func TestWatch(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Watch(ctx, func() {}) }()
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) && !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("it ended by itself: %v", err)
		}
		cancel()
		return
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it goes on after its end")
	}
	if err := watch(t.Context(), filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	file := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// It never tells of anything.
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	called := false
	if err := watch(ctx, file, func() { called = true }); err != nil || called {
		t.Errorf("a file that tells of nothing: %v, called %v", err, called)
	}
}
