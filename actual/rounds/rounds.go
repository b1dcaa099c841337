// SPDX-License-Identifier: Apache-2.0

// Package rounds does once for many what each of them asks for, as a sync of the directory
// that all of them have renamed something in. Databases call it group commit.
package rounds

import (
	"errors"
	"sync"
)

// Rounds calls a function for many callers at once: those who ask while it runs share the
// next call. Each caller is served by a call that began after it had asked.
type Rounds struct {
	do func() error

	turn sync.Mutex // of the call that runs
	mu   sync.Mutex // of next
	next *round     // has not begun
}

// Of returns rounds of a function.
func Of(do func() error) *Rounds { return &Rounds{do: do} }

type round struct {
	once sync.Once
	err  error
}

// errUnfinished is for those who share a call that panics: nothing was done for them.
var errUnfinished = errors.New("what was done for several at once did not end")

// Do returns the error of a call that began after Do was called.
func (r *Rounds) Do() error {
	r.mu.Lock()
	if r.next == nil {
		r.next = new(round)
	}
	mine := r.next
	r.mu.Unlock()
	mine.once.Do(func() {
		r.turn.Lock()
		defer r.turn.Unlock()
		r.mu.Lock()
		r.next = nil // too late for this one
		r.mu.Unlock()
		mine.err = errUnfinished
		mine.err = r.do()
	})
	return mine.err
}
