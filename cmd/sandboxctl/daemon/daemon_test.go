// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
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
