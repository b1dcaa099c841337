// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Somebody takes controllers away from the first group while many groups are made
// below: systemd does so while a host boots. Every group has its limits all the same.
func TestControllersTakenAway(t *testing.T) {
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if h.Version() != "v2" || os.Geteuid() != 0 {
		t.Skipf("needs root and cgroup v2 alone, as in the virtual machine of `make vm`; uid %d, cgroups %s", os.Geteuid(), h.Version())
	}
	if err := os.WriteFile(filepath.Join(h.v2, subtreeControl), []byte("+memory +pids"), 0); err != nil {
		t.Fatal(err)
	}
	for round := range 20 {
		// A hierarchy of the test's own, below the real one.
		own := &Host{v2: filepath.Join(h.v2, fmt.Sprintf("sbctl-taken-%d-%d", os.Getpid(), round)), v1: map[string]string{}}
		if err := os.Mkdir(own.v2, 0o755); err != nil {
			t.Fatal(err)
		}
		takenAway(t, own)
		for _, d := range []string{filepath.Join(own.v2, parent), own.v2} {
			if err := os.Remove(d); err != nil {
				t.Error(err)
			}
		}
	}
}

// takenAway makes groups while their controllers are taken away.
func takenAway(t *testing.T, h *Host) {
	t.Helper()
	stop := make(chan struct{})
	var taker, makers sync.WaitGroup
	taker.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_ = os.WriteFile(filepath.Join(h.v2, subtreeControl), []byte("-memory -pids"), 0) // refused once all have them
			}
		}
	})
	groups := make([]*Group, 8)
	for i := range groups {
		makers.Go(func() {
			g, missing, err := h.Create(fmt.Sprintf("g%d", i), Limits{Memory: 64 << 20, PIDs: 64}, Limits{})
			if err != nil || len(missing) > 0 {
				t.Errorf("%v %v", missing, err)
				return
			}
			groups[i] = g
		})
	}
	makers.Wait()
	close(stop)
	taker.Wait()
	for i, g := range groups {
		if g == nil {
			continue
		}
		for file, want := range map[string]string{"memory.max": "67108864", "pids.max": "64"} {
			if got, err := os.ReadFile(filepath.Join(g.Dirs()[0], file)); err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("g%d: %s is %q, %v", i, file, got, err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		g.Close()
	}
	if on, err := os.ReadFile(filepath.Join(h.v2, parent, subtreeControl)); err != nil || !slices.Contains(strings.Fields(string(on)), "memory") {
		t.Errorf("%q %v", on, err)
	}
}
