// SPDX-License-Identifier: Apache-2.0

package reconciletest

import (
	"fmt"
	"maps"
	"sync"

	"sandboxctl.dev/reconcile"
)

// Line checks the order in which a loop begins what is due: from the moment at which
// an action is due until it begins, every other name of its lane begins at most once.
// Its zero value is ready.
type Line struct {
	mu    sync.Mutex
	begun map[int]map[string]int // by lane: how often each name has begun
	due   map[string]place
	wrong string
}

// Due is an action that is due.
type Due struct {
	Name string
	Lane int
}

// place is where a name stands in the line.
type place struct {
	lane  int
	begun map[string]int // what had begun when it became due
}

// Reset forgets what was due: another loop begins.
func (l *Line) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = nil
}

// Pass notes a pass that has planned the actions. Those whose names are busy after
// it have begun.
func (l *Line) Pass(actions []Due, busy map[string]reconcile.Operation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun == nil {
		l.begun = map[int]map[string]int{}
	}
	for _, a := range actions {
		if l.begun[a.Lane] == nil {
			l.begun[a.Lane] = map[string]int{}
		}
		if _, begun := busy[a.Name]; begun {
			l.begun[a.Lane][a.Name]++
		}
	}
	due := map[string]place{}
	for _, a := range actions {
		p, was := l.due[a.Name]
		if !was || p.lane != a.Lane {
			p = place{a.Lane, maps.Clone(l.begun[a.Lane])}
		}
		for other, times := range l.begun[a.Lane] {
			if ahead := times - p.begun[other]; other != a.Name && ahead > 1 && l.wrong == "" {
				l.wrong = fmt.Sprintf("%s began %d times while %s was due", other, ahead, a.Name)
			}
		}
		if _, begun := busy[a.Name]; !begun {
			due[a.Name] = p
		}
	}
	l.due = due
}

// Wrong is the first breach, "" if there was none.
func (l *Line) Wrong() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wrong
}
