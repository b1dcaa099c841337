// SPDX-License-Identifier: Apache-2.0

package salvage

import (
	"fmt"
	"sync"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/cgroup"
)

// strayEvery is how long a look at all processes is valid. What this launcher has
// started itself, it knows without one.
const strayEvery = 2 * time.Second

// Strays keeps a launcher from starting a second sandbox of a name whose record is
// gone: with a state directory that was removed, unmounted, emptied or replaced
// goes all that is known of what runs.
type Strays struct {
	mu      sync.Mutex
	at      time.Time
	found   *Search
	started map[string][]actual.Identity
}

// Note remembers what was started for a name.
func (s *Strays) Note(name string, ids ...actual.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started == nil {
		s.started = map[string][]actual.Identity{}
	}
	s.started[name] = ids
}

// Check returns an error if something lives of a name and no record knows it.
func (s *Strays) Check(store *actual.Store, groups *cgroup.Host, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.started[name] {
		if live, err := actual.LivenessOf(&id); live == actual.Alive || live == actual.Unknown {
			return strayError(name, fmt.Sprintf("a process (pid %d)", id.PID), err)
		}
	}
	if since := time.Since(s.at); s.found == nil || since < 0 || since > strayEvery {
		found, err := search(thisHost(groups))
		if err != nil {
			return fmt.Errorf("look for what lives of it: %w", err)
		}
		s.found, s.at = found, time.Now()
	}
	left, err := s.found.strays(store, func(n string) bool { return n == name })
	if err != nil || len(left) == 0 {
		return err
	}
	_, err = actual.LivenessOf(&left[0].Identity)
	return strayError(name, "its "+left[0].String(), err)
}

func strayError(name, what string, why error) error {
	err := fmt.Errorf("%w: %s lives and there is no record of %s that knows it: was the state directory removed, replaced or not mounted? "+
		"Put it back, or end the process; `sandboxctl doctor` lists all of them", actual.ErrUnknownProcess, what, name)
	if why != nil {
		err = fmt.Errorf("%w (%w)", err, why)
	}
	return err
}
