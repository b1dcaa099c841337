// SPDX-License-Identifier: Apache-2.0

package salvage

import (
	"fmt"
	"sync"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/cgroup"
)

// How long a look at all processes is valid. It reads files of every process of the
// host, which takes longer than the rest of what a start does before its processes are
// there. What this launcher has started itself, it knows without one, and whether what
// was found still lives is asked each time. Nobody else starts anything for the same
// state directory but a daemon that was there before, of a directory that was moved
// away under it. It notices with its next pass: for settled after the first look, looks
// are valid for youngValid only.
const (
	youngValid = 2 * time.Second
	settled    = time.Minute
	valid      = time.Minute
)

// Strays keeps a launcher from starting a second sandbox of a name whose record is
// gone: with a state directory that was removed, unmounted, emptied or replaced
// goes all that is known of what runs.
type Strays struct {
	mu      sync.Mutex
	first   time.Time // of the looks
	at      time.Time // of the last one
	found   *Search
	started map[string][]process.Identity
	find    func(host) (*Search, error) // search, if it is nil
}

// look returns what was found a moment ago, or looks again.
func (s *Strays) look(groups *cgroup.Host) (*Search, error) {
	now := time.Now()
	bound := valid
	if now.Sub(s.first) < settled {
		bound = youngValid
	}
	if since := now.Sub(s.at); s.found != nil && since >= 0 && since <= bound {
		return s.found, nil
	}
	look := s.find
	if look == nil {
		look = search
	}
	found, err := look(thisHost(groups))
	if err != nil {
		return nil, fmt.Errorf("look for what lives of it: %w", err)
	}
	s.found, s.at = found, time.Now()
	if s.first.IsZero() {
		s.first = s.at
	}
	return found, nil
}

// Note remembers what was started for a name.
func (s *Strays) Note(name string, ids ...process.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started == nil {
		s.started = map[string][]process.Identity{}
	}
	s.started[name] = ids
}

// Check returns an error if something lives of a name and no record knows it.
func (s *Strays) Check(store *actual.Store, groups *cgroup.Host, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.started[name] {
		if live, err := process.LivenessOf(&id); live == process.Alive || live == process.Unknown {
			return strayError(name, fmt.Sprintf("a process (pid %d)", id.PID), err)
		}
	}
	found, err := s.look(groups)
	if err != nil {
		return err
	}
	left, err := found.strays(store, func(n string) bool { return n == name })
	if err != nil || len(left) == 0 {
		return err
	}
	_, err = process.LivenessOf(&left[0].Identity)
	return strayError(name, "its "+left[0].String(), err)
}

func strayError(name, what string, why error) error {
	err := fmt.Errorf("%w: %s lives and there is no record of %s that knows it: was the state directory removed, replaced or not mounted? "+
		"Put it back, or end the process; `sandboxctl doctor` lists all of them", process.ErrUnknownProcess, what, name)
	if why != nil {
		err = fmt.Errorf("%w (%w)", err, why)
	}
	return err
}
