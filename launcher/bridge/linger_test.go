// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"testing"
	"time"
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
		if left := w.k.left(); left <= 0 || left > linger {
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
		if left := w.k.left(); left > 0 {
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
