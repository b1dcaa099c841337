// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"testing"

	"github.com/google/nftables"

	"sandboxctl.dev/desired/networks"
)

// Somebody who flushes the rules of the host between Begin and Attach leaves no sandbox with a
// link and without rules.
func TestStill(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.choose("web", networks.Network{}); err != nil {
		t.Fatal(err)
	}
	in := func(fn func() error) {
		t.Helper()
		if err := w.ns.Do(fn); err != nil {
			t.Fatal(err)
		}
	}
	in(w.k.rules.Do) // as Begin does, whose goroutine would be in the namespace of this program
	in(w.k.still)
	in(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		return c.Flush()
	})
	in(func() error {
		if intact, err := w.k.table.Intact(); intact || err != nil {
			t.Error("nothing was flushed: ", err)
		}
		return nil
	})
	in(w.k.still)
	in(func() error {
		if intact, err := w.k.table.Intact(); !intact || err != nil {
			t.Error("rules are not in force: ", err)
		}
		return nil
	})
}
