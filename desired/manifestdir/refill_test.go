// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/desiredtest"
)

// A directory that was away, or another one, comes back file by file, as a copy
// or a checkout fills it, and not always fast: what is not there yet is not gone.
func TestDirRefilled(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(t *testing.T, m string){
		"replaced": func(t *testing.T, m string) {
			desiredtest.Must(t, os.Rename(m, m+".old"))
			desiredtest.Must(t, os.Mkdir(m, 0o755))
		},
		"missing": func(t *testing.T, m string) {
			desiredtest.Must(t, os.Rename(m, m+".old"))
		},
	} {
		// In fake time: how busy the host is must not decide what "a moment ago" is.
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { refilled(t, away) })
		})
	}
}

func refilled(t *testing.T, away func(*testing.T, string)) {
	t.Helper()
	const settle = 20 * time.Millisecond
	m := filepath.Join(t.TempDir(), "m")
	desiredtest.Must(t, os.Mkdir(m, 0o755))
	write := func(n string) {
		desiredtest.Must(t, os.WriteFile(filepath.Join(m, n+".yaml"), []byte(named(n)), 0o644))
	}
	d := New(Options{Path: m, Settle: settle, BootID: "boot", Expected: true})
	load := func() *desired.Snapshot {
		s, err := d.Load(t.Context())
		desiredtest.Must(t, err)
		return s
	}
	complete := func() *desired.Snapshot {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(settle / 4) {
			if s := load(); s.Complete {
				return s
			}
		}
		t.Fatalf("never complete: %+v", load())
		return nil
	}
	for _, n := range []string{"a", "b", "c"} {
		write(n)
	}
	complete()
	away(t, m)
	for range 8 {
		if s := load(); s.Complete {
			t.Fatalf("away, and complete: %+v", s)
		}
		time.Sleep(settle / 2)
	}
	desiredtest.Must(t, os.MkdirAll(m, 0o755))
	for _, n := range []string{"a", "b"} {
		write(n)
		wrote := time.Now()
		// Longer than an absence must last otherwise; both together are longer
		// than the directory is waited for if nothing comes.
		for range refill + refill/2 {
			if s := load(); s.Complete && time.Since(wrote) < refill*settle {
				t.Fatalf("complete with %d of 3 manifests: %+v", len(s.Entries), s)
			}
			time.Sleep(settle / 2)
		}
	}
	// c is not coming, and that is believed in the end.
	if s := complete(); len(s.Entries) != 2 {
		t.Errorf("%d entries, expected a and b", len(s.Entries))
	}
	// What comes later is an ordinary change.
	write("c")
	if s := complete(); len(s.Entries) != 3 {
		t.Errorf("%d entries, expected three", len(s.Entries))
	}
}
