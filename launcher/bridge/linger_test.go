// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sandboxctl.dev/actual/rounds"
)

// The table outlasts the last sandbox on networks for a while, without anything of it: the next one
// is a step, as among others. Then it goes, and at once when the daemon ends.
func TestLinger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	round := func() {
		t.Helper()
		if err := w.ns.Do(w.k.rules.Do); err != nil {
			t.Fatal(err)
		}
	}
	there := func(want bool) {
		t.Helper()
		if err := w.ns.Do(func() error {
			is, err := w.k.table.There()
			if is != want {
				t.Errorf("the table is there: %t, expected %t", is, want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	w.runs("web")
	round()
	losses := w.k.table.Losses()
	for _, ends := range []func(){
		func() { w.k.vacant = w.k.vacant.Add(-linger) },
		func() {
			if err := w.ns.Do(func() error { w.k.leave(); return nil }); err != nil {
				t.Fatal(err)
			}
			w.k.leaving = false
		},
	} {
		w.gone("web")
		round()
		there(true)
		if n := len(w.k.judged.Sandboxes) + len(w.k.installed.Sandboxes); n > 0 {
			t.Errorf("%d are judged or have rules", n)
		}
		if left, vacant := w.k.left(); !vacant || left <= 0 || left > linger {
			t.Errorf("it stays for %s", left)
		}
		round() // is no reason for it to stay longer, nor to go
		there(true)
		w.runs("web")
		round()
		if !w.k.vacant.IsZero() || w.k.table.Losses() != losses {
			t.Errorf("since %s there is a table for nobody; %d losses, %d before", time.Since(w.k.vacant), w.k.table.Losses(), losses)
		}
		w.gone("web")
		round()
		there(true)
		ends()
		round()
		there(false)
		if left, vacant := w.k.left(); vacant || left > 0 {
			t.Errorf("a table that is gone stays for %s", left)
		}
		w.runs("web")
		round()
		there(true)
		losses = w.k.table.Losses()
	}
	// What nobody knows is not left there.
	w.gone("web")
	w.k.forget()
	round()
	there(false)
}

// A round that found the table to have a moment left is followed by another one although none is
// left when it ends.
func TestLingersOver(t *testing.T) {
	t.Parallel()
	k, pace := &Keeper{}, &rounds.Pace{Every: time.Hour, Soon: time.Hour}
	if k.later(pace, false, nil) != nil {
		t.Error("an idle daemon wakes")
	}
	k.vacant = time.Now().Add(-linger - time.Second)
	select {
	case <-k.later(pace, false, nil):
	case <-time.After(20 * time.Second):
		t.Error("nobody removes the table")
	}
}

// Rules of the last sandbox that can't be replaced, since its connections can't be judged, are
// tried again, also by a round that looks at all: they publish its ports.
func TestLastRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	judgedFile := filepath.Join(w.k.store.Path(), JudgedFile)
	round := func(look, fails bool) {
		t.Helper()
		if err := w.ns.Do(func() error {
			used, err := w.k.round(look)
			if used || (err != nil) != fails {
				t.Errorf("used %t, %v", used, err)
			}
			there, err := w.k.table.There()
			return errors.Join(err, map[bool]error{false: errors.New("the table is gone")}[there])
		}); err != nil {
			t.Fatal(err)
		}
	}
	w.runs("web")
	if err := w.ns.Do(w.k.rules.Do); err != nil {
		t.Fatal(err)
	}
	w.gone("web")
	// Nothing is written in the place of a directory.
	if err := errors.Join(os.Remove(judgedFile), os.Mkdir(judgedFile, 0o700)); err != nil {
		t.Fatal(err)
	}
	round(false, true)
	round(true, true)
	if err := os.Remove(judgedFile); err != nil {
		t.Fatal(err)
	}
	round(false, false)
	if left, vacant := w.k.left(); !vacant || left <= 0 || len(w.k.judged.Sandboxes) > 0 {
		t.Errorf("a table for nobody %t, which stays for %s; %d are judged", vacant, left, len(w.k.judged.Sandboxes))
	}
	w.k.vacant = w.k.vacant.Add(-linger)
	if err := w.ns.Do(func() error {
		_, err := w.k.round(true)
		there, terr := w.k.table.There()
		if there {
			t.Error("the table stays")
		}
		return errors.Join(err, terr)
	}); err != nil {
		t.Fatal(err)
	}
}
