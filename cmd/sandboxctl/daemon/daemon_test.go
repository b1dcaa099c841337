// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/manifestdir"
)

// What could not be written down is written at the next pass, also if nothing has
// changed since: until then others believe what the daemon before said.
func TestRememberAgain(t *testing.T) {
	t.Parallel()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d := &daemon{store: store, dir: manifestdir.New(manifestdir.Options{Path: t.TempDir()}), log: slog.New(slog.DiscardHandler)}
	file := filepath.Join(store.Path(), "daemon.json")
	for i, removals := range [][]time.Time{nil, {time.Now()}, {time.Now().Add(time.Second)}} {
		_ = os.Remove(file)
		if err := os.Mkdir(file, 0o700); err != nil { // nothing can be renamed over it
			t.Fatal(err)
		}
		d.remember(removals, nil)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		d.remember(removals, nil)
		info, _, err := store.DaemonInfo()
		if err != nil || info == nil || len(info.Removals) != len(removals) {
			t.Fatalf("%d: %+v %v", i, info, err)
		}
		if len(removals) > 0 && !info.Removals[0].Equal(removals[0]) {
			t.Errorf("%d: removals of %v, expected %v", i, info.Removals, removals)
		}
	}
}

// What fails again and again with the same words is in the log once: it would fill the disk of a host
// on which nobody looks. Other words are told, and so is what has run for a while.
func TestKeepTellsOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	const pause = 20 * time.Millisecond
	calls := 0
	keep(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), "serve", func(context.Context) error {
		calls++
		want := map[int]int{1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 3}[calls]
		if n := strings.Count(log.String(), "serve failed, will retry"); n != want {
			t.Errorf("call %d: told %d times, expected %d:\n%s", calls, n, want, log.String())
		}
		switch calls {
		case 1, 2:
			return errors.New("the path is taken")
		case 3, 4:
			return errors.New("permission denied")
		case 5:
			time.Sleep(11 * pause)
			return errors.New("permission denied")
		}
		return nil
	}, pause)
	if calls != 6 {
		t.Errorf("%d calls", calls)
	}
}
