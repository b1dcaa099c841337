// SPDX-License-Identifier: Apache-2.0

package clientwork

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(2)
		first, err := g.Begin()
		if err != nil {
			t.Fatal(err)
		}
		second, err := g.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Begin(); !errors.Is(err, ErrFull) {
			t.Errorf("a third of two: %v", err)
		}
		second.End()
		third, err := g.Begin()
		if err != nil {
			t.Errorf("after one has ended: %v", err)
		}
		go func() {
			<-first.Stopped()
			time.Sleep(time.Second)
			first.End()
		}()
		// One that hangs keeps nobody waiting for ever.
		if g.Quiet(10 * time.Second) {
			t.Error("quiet with work that has not ended")
		}
		third.End()
		if !g.Quiet(time.Second) {
			t.Error("not quiet without work")
		}
		g.Resume()
		if _, err := g.Begin(); !errors.Is(err, ErrQuiet) {
			t.Errorf("began while it has to be quiet: %v", err)
		}
		g.Resume()
		w, err := g.Begin()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			<-w.Stopped()
			w.End()
		}()
		if !g.Quiet(time.Second) {
			t.Error("not quiet though it ended when it was told to")
		}
	})
}
