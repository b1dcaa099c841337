// SPDX-License-Identifier: Apache-2.0

// Package moment has points in time that are on record. The time between two of the same
// boot of the host does not change when somebody sets the wall clock, or the host sleeps.
package moment

import (
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
)

// Moment is a point in time, by both clocks of a host.
type Moment struct {
	Wall time.Time `json:"wall"`
	// Boot is CLOCK_BOOTTIME: since the boot of BootID, with the time that the host slept.
	Boot   time.Duration `json:"boot"`
	BootID string        `json:"bootID,omitempty"`
}

// Now reads the clocks.
func Now() Moment {
	id, err := process.BootID()
	if err != nil {
		id = "" // then the wall clock is all that there is
	}
	return Moment{Wall: time.Now(), Boot: SinceBoot(), BootID: id}
}

// SinceBoot reads CLOCK_BOOTTIME. Every kernel that sandboxes run on has it.
func SinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// Since is how long ago a moment was, at least 0. The wall clock is asked only where no
// other one goes through both.
func (m Moment) Since(earlier Moment) time.Duration {
	if m.BootID != "" && m.BootID == earlier.BootID {
		return max(0, m.Boot-earlier.Boot)
	}
	return max(0, m.Wall.Sub(earlier.Wall))
}

// Minus is the moment so long before this one.
func (m Moment) Minus(d time.Duration) Moment {
	m.Wall, m.Boot = m.Wall.Add(-d), m.Boot-d
	return m
}

// Active is how long something has been active: since From, and Earlier before that. It is
// replaced, never changed.
type Active struct {
	From    Moment        `json:"from"`
	Earlier time.Duration `json:"earlier,omitempty"`
}

// For is how long that is by now, 0 of nil.
func (a *Active) For(now Moment) time.Duration {
	if a == nil {
		return 0
	}
	return a.Earlier + now.Since(a.From)
}

// Counted has what was counted until now in Earlier. Only the clock of this boot tells that, and
// the next boot may begin with a wall clock that is years behind.
func (a *Active) Counted(now Moment) *Active {
	if a == nil || now.BootID == "" || a.From.BootID != now.BootID {
		return a
	}
	return &Active{From: now, Earlier: a.For(now)}
}

// At counts on from now. In another boot the clock of the first one has ended: what has been
// counted by the wall clock until then stays counted, whatever that is set to.
func (a *Active) At(now Moment) *Active {
	if a != nil && a.From.BootID == now.BootID {
		return a
	}
	return &Active{From: now, Earlier: a.For(now)}
}
