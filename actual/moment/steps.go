// SPDX-License-Identifier: Apache-2.0

package moment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// farAway is when the timer expires that only serves to be cancelled by a step.
const farAway = 365 * 24 * time.Hour

// Steps tells when somebody has set the wall clock, or the host has slept: who waits for a
// time of the wall clock by another clock must look again.
type Steps struct{ told chan struct{} }

// NewSteps returns one that tells nothing before Run is called.
func NewSteps() *Steps { return &Steps{told: make(chan struct{}, 1)} }

// Changes receives after each step, and once when Run begins.
func (s *Steps) Changes() <-chan struct{} { return s.told }

// Run watches the clock until ctx is done.
func (s *Steps) Run(ctx context.Context) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch the clock: %w", err)
	}
	timer := os.NewFile(uintptr(fd), "timerfd")
	defer timer.Close()
	defer context.AfterFunc(ctx, func() { _ = timer.SetReadDeadline(time.Unix(1, 0)) })() // ends the read
	err = s.watch(timer, func() error {
		at := unix.NsecToTimespec(time.Now().Add(farAway).UnixNano())
		return unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &unix.ItimerSpec{Value: at}, nil)
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watch the clock: %w", err)
}

// watch reads a timer until that fails for another reason than a step of the clock.
func (s *Steps) watch(timer io.Reader, arm func() error) error {
	s.tell() // of what there was before the timer
	var expired [8]byte
	for {
		// A clock that was set since the last read of the timer cancels it too, which is told
		// here once: then it is armed all the same.
		if err := arm(); errors.Is(err, unix.ECANCELED) {
			s.tell()
		} else if err != nil {
			return err
		}
		// The kernel cancels the timer when the clock is set. It expires if that was long ago,
		// or by more than a year.
		if _, err := timer.Read(expired[:]); err != nil && !errors.Is(err, unix.ECANCELED) {
			return err
		}
		s.tell()
	}
}

func (s *Steps) tell() {
	select {
	case s.told <- struct{}{}:
	default: // nobody has looked since the last one
	}
}
