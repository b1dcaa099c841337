// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/gofer/sandboxlog"
)

// A gofer that was taken over leaves traps where its logs were: its sandbox can be
// started again, looked at and removed, and nothing of it stays.
func TestHostileGofer(t *testing.T) {
	requireHost(t)
	opts := stubOptions(t)
	opts.BootTimeout = time.Minute // nothing here is about it
	h, store := realHostStore(t, opts)
	for attempt := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		must(t, h.Create(ctx, h.Entry(stubPlants, "a"), nil, ""))
		// It is done with its traps when the last of them is there.
		trap := filepath.Join(store.Path(), "sandboxes", stubPlants, sandboxlog.Dir, strconv.Itoa(attempt+1), "a\n\x1b[2J")
		for _, err := os.Lstat(trap); err != nil; _, err = os.Lstat(trap) {
			must(t, context.Cause(ctx))
			time.Sleep(time.Millisecond)
		}
		must(t, h.Destroy(ctx, stubPlants, actual.Ending{Reason: "Test"}))
		_, err := h.Observe(ctx)
		must(t, err)
		var out, errs bytes.Buffer
		a := &app{Host: world.Host{Stdout: &out, Stderr: &errs}}
		for _, args := range []string{"logs", "logs -f", "logs --sentry", "logs --previous"} {
			if code := a.run(ctx, append([]string{"--state", store.Path()}, append(strings.Fields(args), stubPlants)...)); code == 0 || !strings.Contains(errs.String(), "is a fifo") && !strings.Contains(errs.String(), "no run before") {
				t.Errorf("%s: %d %s", args, code, errs.String())
			}
			errs.Reset()
		}
		sweepAll(t, store)
		must(t, h.Check())
	}
	must(t, h.Forget(t.Context(), stubPlants))
	sweepAll(t, store)
	must(t, h.Check())
}

func sweepAll(t *testing.T, store *actual.Store) {
	t.Helper()
	for more := true; more; {
		var err error
		more, err = store.SweepTrash()
		must(t, err)
	}
}
