// SPDX-License-Identifier: Apache-2.0

package moment

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// at is a moment of a boot, with the wall clock set by off.
func at(boot string, s int, off time.Duration) Moment {
	d := time.Duration(s) * time.Second
	return Moment{Wall: noon.Add(d + off), Boot: d, BootID: boot}
}

// A step of the wall clock changes nothing within a boot. Without another clock it counts, and
// no time is less than none.
func TestSince(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		now, then Moment
		want      time.Duration
	}{
		"same boot":            {at("a", 30, 0), at("a", 10, 0), 20 * time.Second},
		"set forward":          {at("a", 30, 9*time.Hour), at("a", 10, 0), 20 * time.Second},
		"set back":             {at("a", 30, -9*time.Hour), at("a", 10, 0), 20 * time.Second},
		"another boot":         {at("b", 30, 0), at("a", 10, 0), 20 * time.Second},
		"another, set back":    {at("b", 30, -time.Hour), at("a", 10, 0), 0},
		"boot is not known":    {Moment{Wall: noon.Add(time.Second)}, Moment{Wall: noon}, time.Second},
		"record of other host": {at("a", 5, 0), at("a", 10, 0), 0},
	} {
		if got := c.now.Since(c.then); got != c.want {
			t.Errorf("%s: %s, expected %s", name, got, c.want)
		}
	}
	if got := at("a", 30, 0).Minus(20 * time.Second); got != at("a", 10, 0) {
		t.Errorf("%+v", got)
	}
}

// What was counted stays counted over reboots, whatever the clock is set to then.
func TestActiveFor(t *testing.T) {
	t.Parallel()
	var a *Active
	if a.For(at("a", 9, 0)) != 0 {
		t.Error("what never was active was for some time")
	}
	a = a.At(at("a", 10, 0))
	if again := a.At(at("a", 15, 0)); again != a {
		t.Error("a restart in the same boot begins to count again")
	}
	if got := a.For(at("a", 40, -time.Hour)); got != 30*time.Second {
		t.Errorf("%s, expected 30s", got)
	}
	b := a.At(at("b", 50, 0))
	if got := b.For(at("b", 55, 0)); got != 45*time.Second {
		t.Errorf("after a reboot %s, expected 45s", got)
	}
	if got := b.For(at("b", 55, -time.Hour)); got != 45*time.Second {
		t.Errorf("after a reboot and a step %s, expected 45s", got)
	}
	c := b.At(at("c", 60, -24*time.Hour))
	if got := c.For(at("c", 61, 0)); got != 41*time.Second {
		t.Errorf("after a reboot under a clock that was set back %s, expected 41s: what was counted before it", got)
	}
}

// What the clock of one boot tells is kept for another one that begins with a clock that is
// behind. That of another boot tells nothing: it may be corrected later.
func TestActiveCounted(t *testing.T) {
	t.Parallel()
	a := (*Active)(nil).At(at("a", 10, 0))
	ended := a.Counted(at("a", 40, 3*time.Hour))
	for name, now := range map[string]Moment{"same boot": at("a", 40, 0), "another boot, behind": at("b", 1, -24*time.Hour)} {
		if got := ended.For(now); got != 30*time.Second {
			t.Errorf("%s: %s, expected 30s", name, got)
		}
	}
	if got := ended.For(at("a", 45, 0)); got != 35*time.Second {
		t.Errorf("later %s, expected 35s", got)
	}
	if late := a.Counted(at("b", 1, -24*time.Hour)); late != a {
		t.Errorf("counted by another boot: %+v", late)
	}
	if (*Active)(nil).Counted(at("a", 10, 0)) != nil || a.Counted(Moment{Wall: noon}) != a {
		t.Error("counted by no clock")
	}
}

// The clocks of this host go on.
func TestNow(t *testing.T) {
	t.Parallel()
	a := Now()
	time.Sleep(time.Millisecond)
	b := Now()
	if a.BootID == "" || a.BootID != b.BootID || b.Since(a) < time.Millisecond || a.Since(b) != 0 {
		t.Errorf("%+v, then %+v", a, b)
	}
}

// timer is one that is cancelled, or expires, or breaks.
type timer struct{ errs []error }

func (t *timer) Read([]byte) (int, error) {
	err := t.errs[0]
	t.errs = t.errs[1:]
	return 0, err
}

// Each step of the clock is told and arms the timer again; a broken timer ends the watch.
func TestWatch(t *testing.T) {
	t.Parallel()
	s, armed := &Steps{told: make(chan struct{}, 8)}, 0
	err := s.watch(&timer{[]error{&os.PathError{Err: unix.ECANCELED}, nil, io.EOF}}, func() error { armed++; return nil })
	if !errors.Is(err, io.EOF) || len(s.told) != 3 || armed != 3 {
		t.Errorf("%v: %d steps told, timer armed %d times; expected 3, one of them at the beginning, and 3", err, len(s.told), armed)
	}
	if err := s.watch(nil, func() error { return unix.EINVAL }); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	// A clock that is set while nobody reads the timer is told by the call that arms it.
	s = &Steps{told: make(chan struct{}, 8)}
	if err := s.watch(&timer{[]error{io.EOF}}, func() error { return unix.ECANCELED }); !errors.Is(err, io.EOF) || len(s.told) != 2 {
		t.Errorf("%v: %d steps told, expected 2, one of them at the beginning", err, len(s.told))
	}
	// Who does not look keeps nobody.
	s = NewSteps()
	if err := s.watch(&timer{[]error{unix.ECANCELED, unix.ECANCELED, io.EOF}}, func() error { return nil }); !errors.Is(err, io.EOF) || len(s.Changes()) != 1 {
		t.Errorf("%v: %d told", err, len(s.Changes()))
	}
}

// The kernel takes the timer; nothing is told while nobody sets the clock; and it ends.
func TestSteps(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s, done := NewSteps(), make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Changes(): // it begins
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is told at the beginning")
	}
	select {
	case <-s.Changes():
		t.Error("the clock was set, or that was told for nothing")
	case err := <-done:
		t.Fatalf("it ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}
