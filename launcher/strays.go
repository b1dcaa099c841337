// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/wire"
)

// Marked is a live sentry or gofer that says in its arguments which sandbox of
// which state directory it was started for. The state directory may be gone: this
// is what survives it.
type Marked struct {
	Role     string // sentry or gofer
	Sandbox  string
	State    string // the path of the state directory when it was started
	Identity actual.Identity
}

// String gives "sentry (pid 7)".
func (m *Marked) String() string { return fmt.Sprintf("%s (pid %d)", m.Role, m.Identity.PID) }

// FindMarked finds the sentries and gofers that daemons in this pid namespace have
// started and that live, of any state directory.
func FindMarked() ([]Marked, error) {
	// Not by a pattern: a directory that can't be read would match nothing, and a
	// sandbox that lives would be started a second time.
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []Marked
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue // no process
		}
		m, ok, err := marked(filepath.Join("/proc", e.Name()))
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, m)
		}
	}
	return out, nil
}

// unlessEnded is the error of a look at a process, nil if it has ended.
func unlessEnded(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return fmt.Errorf("look at a process: %w", err)
}

// marked looks at one process. The pidfd is older than the look at the arguments,
// so that both are of the same process.
func marked(proc string) (Marked, bool, error) {
	cmdline, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		return Marked{}, false, unlessEnded(err)
	}
	if _, ok := marks(cmdline); !ok {
		return Marked{}, false, nil
	}
	pid, err := strconv.Atoi(filepath.Base(proc))
	if err != nil {
		return Marked{}, false, err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return Marked{}, false, unlessEnded(err)
	}
	defer unix.Close(pidfd)
	if cmdline, err = os.ReadFile(proc + "/cmdline"); err != nil {
		return Marked{}, false, unlessEnded(err)
	}
	m, ok := marks(cmdline)
	// The processes that a sentry runs the application in look like it: they are
	// not the first of their pid namespace. Those of a daemon in a container are
	// deeper than ours.
	if !ok {
		return Marked{}, false, nil
	}
	if first, err := isChildInit(proc); err != nil || !first {
		return Marked{}, false, err
	}
	m.Identity, err = actual.Identify(pidfd, pid)
	if err != nil {
		return Marked{}, false, unlessEnded(err)
	}
	return m, true, nil
}

// marks reads the arguments of a sentry or gofer.
func marks(cmdline []byte) (Marked, bool) {
	args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	var m Marked
	switch args[0] {
	case SentryName:
		m.Role, m.Sandbox = roleSentry, args[len(args)-1]
		for _, a := range args {
			if v, ok := strings.CutPrefix(a, "--"+wire.FlagState+"="); ok {
				m.State = v
			}
		}
	case gofer.Argv0:
		if len(args) == gofer.Args {
			m.Role, m.Sandbox, m.State = roleGofer, args[2], args[3]
		}
	}
	return m, m.State != "" && actual.ValidID(m.Sandbox)
}

// isChildInit says whether a process is the first one of a pid namespace directly
// below ours.
func isChildInit(proc string) (bool, error) {
	b, err := os.ReadFile(proc + "/status")
	if err != nil {
		return false, unlessEnded(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "NSpid:"); ok {
			ids := strings.Fields(v)
			return len(ids) == 2 && ids[1] == "1", nil
		}
	}
	return false, nil
}

// Strays are those of the marked processes that no record of the store knows, of
// sandboxes of its state directory, as far as one can tell: what is under way is
// none, nor what has a record that can't be read.
func Strays(store *actual.Store, found []Marked) ([]Marked, error) {
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	known := map[actual.Identity]bool{}
	passed := map[string]bool{}
	for _, r := range list.Records {
		for _, id := range []*actual.Identity{r.Sentry, r.Gofer} {
			if id != nil {
				known[id.Bare()] = true
			}
		}
		if r.Phase == actual.PhaseCreating {
			passed[r.Name] = true
		}
	}
	for _, h := range list.Held {
		passed[h.Name] = true
	}
	marker := store.Marker()
	return slices.DeleteFunc(slices.Clone(found), func(m Marked) bool {
		if m.State != marker || passed[m.Sandbox] || known[m.Identity.Bare()] {
			return true
		}
		// It may have ended, and been forgotten, since it was seen.
		live, _ := Liveness(&m.Identity)
		return live == actual.Dead
	}), nil
}

// strayEvery is how long a look at all processes is good for. What this launcher
// has started itself it knows besides.
const strayEvery = 2 * time.Second

// strays keeps a launcher from starting a second sandbox of a name whose record is
// gone: with a state directory that was removed, unmounted, emptied or replaced
// goes all that is known of what runs.
type strays struct {
	mu      sync.Mutex
	at      time.Time
	found   []Marked
	started map[string][]actual.Identity
}

// note remembers what was started for a name.
func (s *strays) note(name string, ids ...actual.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started == nil {
		s.started = map[string][]actual.Identity{}
	}
	s.started[name] = ids
}

// check returns an error if something lives of a name that has no record.
func (s *strays) check(store *actual.Store, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.started[name] {
		if live, err := Liveness(&id); live == actual.Alive || live == actual.Unknown {
			return strayError(name, fmt.Sprintf("a process (pid %d)", id.PID), err)
		}
	}
	if since := time.Since(s.at); since < 0 || since > strayEvery {
		found, err := FindMarked()
		if err != nil {
			return fmt.Errorf("look for what lives of it: %w", err)
		}
		s.found, s.at = found, time.Now()
	}
	left, err := Strays(store, s.found)
	if err != nil {
		return err
	}
	for i := range left {
		m := &left[i]
		if m.Sandbox != name {
			continue
		}
		if live, err := Liveness(&m.Identity); live == actual.Alive || live == actual.Unknown {
			return strayError(name, "its "+m.String(), err)
		}
	}
	return nil
}

func strayError(name, what string, why error) error {
	err := fmt.Errorf("%w: %s lives and there is no record of %s: was the state directory removed, replaced or not mounted? "+
		"Put it back, or end the process; `sandboxctl doctor` lists all of them", ErrUnknownProcess, what, name)
	if why != nil {
		err = fmt.Errorf("%w (%w)", err, why)
	}
	return err
}
