// SPDX-License-Identifier: Apache-2.0

package salvage

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/procfs"
	"sandboxctl.dev/launcher/wire"
)

// roleMember is the role of a process that is in the cgroup of a sandbox and does
// not say what it is.
const roleMember = "process"

// Marked is a live process that was started for a sandbox of a state directory. The
// state directory may be gone: its arguments or its cgroup tell.
type Marked struct {
	Role     string // sentry, gofer or process
	Sandbox  string
	State    string // the path of the state directory when it was started
	Identity process.Identity
}

// String gives "sentry (pid 7)".
func (m *Marked) String() string {
	if m.Identity.PID == 0 {
		return m.Role + " (in a pid namespace that is not seen from here)"
	}
	return fmt.Sprintf("%s (pid %d)", m.Role, m.Identity.PID)
}

// Search is what one look at this host has found of sandboxes, of any state
// directory. Their arguments tell what sentries and gofers are. One that was taken
// over can overwrite its arguments; it can't leave its cgroup. Where cgroups carry no
// marks, what is in the cgroup of a sandbox and says nothing is of any state directory
// that does not know the sandbox.
//
// Whether what claims to be a sentry or gofer is one is looked at when it matters: a
// start asks about one name, and a host that is full of sandboxes has thousands of
// processes that claim it.
type Search struct {
	host   host
	claims []claim
	groups []cgroup.Marked
}

// claim is a process that says in its arguments what it is.
type claim struct {
	pid int
	// Marked is what it said, without an identity until it was looked at.
	Marked
	looked, true bool
}

// host is how a Search looks at a host.
type host struct {
	pids     func() ([]int, error)
	read     func(pid int, file string) ([]byte, error) // below /proc/PID
	pidfd    func(pid int) (int, error)
	identify func(pidfd, pid int) (process.Identity, error)
	groups   func(memberships []string) ([]cgroup.Marked, error)
	members  func(*cgroup.Marked) ([]int, error)
}

func thisHost(groups *cgroup.Host) host {
	return host{
		pids: procfs.PIDs, read: procfs.Read,
		pidfd:    func(pid int) (int, error) { return unix.PidfdOpen(pid, 0) },
		identify: process.Identify,
		groups:   groups.Marked, members: (*cgroup.Marked).Members,
	}
}

// SearchHost finds what lives of sandboxes, as daemons in this pid namespace have
// started it.
func SearchHost() (*Search, error) {
	groups, err := cgroup.Detect()
	if err != nil {
		return nil, fmt.Errorf("detect cgroups: %w", err)
	}
	s, err := search(thisHost(groups))
	if err != nil {
		return nil, err
	}
	return s, s.look(func(*Marked) bool { return true })
}

// search returns an error unless all could be looked at: what could not may live.
func search(h host) (*Search, error) {
	s := &Search{host: h}
	pids, err := h.pids()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	memberships := map[string]bool{} // most processes are in the same few
	for _, pid := range pids {
		cmdline, err := h.read(pid, "cmdline")
		if err := procfs.UnlessEnded(err); err != nil {
			return nil, err
		}
		if m, ok := marks(cmdline); ok {
			s.claims = append(s.claims, claim{pid: pid, Marked: m})
		}
		in, err := h.read(pid, "cgroup")
		if err := procfs.UnlessEnded(err); err != nil {
			return nil, err
		}
		memberships[string(in)] = true
	}
	if s.groups, err = h.groups(slices.Collect(maps.Keys(memberships))); err != nil {
		return nil, err
	}
	return s, nil
}

// look looks at the wanted processes of those that claim to be sentries or gofers.
func (s *Search) look(wanted func(*Marked) bool) error {
	for i := range s.claims {
		c := &s.claims[i]
		if c.looked || !wanted(&c.Marked) {
			continue
		}
		m, ok, err := s.host.marked(c.pid)
		if err != nil {
			return err
		}
		c.looked, c.true = true, ok
		if ok {
			c.Marked = m
		}
	}
	return nil
}

// truly are the wanted ones of what was looked at and is what it claims to be.
func (s *Search) truly(wanted func(*Marked) bool) (out []*Marked) {
	for i := range s.claims {
		if c := &s.claims[i]; c.true && wanted(&c.Marked) {
			out = append(out, &c.Marked)
		}
	}
	return out
}

// Processes is how many sentries and gofers were found by their arguments.
func (s *Search) Processes() int { return len(s.truly(func(*Marked) bool { return true })) }

// States are the state directories that something was found of, sorted.
func (s *Search) States() []string {
	var out []string
	for _, m := range s.truly(func(*Marked) bool { return true }) {
		out = append(out, m.State)
	}
	for i := range s.groups {
		out = append(out, s.groups[i].State)
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(state string) bool { return state == "" })
}

// Of is all that lives of a state directory.
func (s *Search) Of(state string) ([]Marked, error) {
	return s.living(func(m *Marked) bool { return m.State == state },
		func(g *cgroup.Marked) bool { return ofState(g, state) })
}

// Strays are those that no record of the store knows, of sandboxes of its state
// directory, as far as one can tell: what is under way is none, nor what has a
// record that can't be read.
func (s *Search) Strays(store *actual.Store) ([]Marked, error) {
	return s.strays(store, func(string) bool { return true })
}

func (s *Search) strays(store *actual.Store, wanted func(name string) bool) ([]Marked, error) {
	marker := store.Marker()
	if !s.mentions(marker, wanted) {
		return nil, nil // most starts: no record needs to be read
	}
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	known := map[process.Identity]bool{}
	passed, groups := map[string]bool{}, map[string]bool{}
	for _, r := range list.Records {
		for _, id := range []*process.Identity{r.Sentry, r.Gofer} {
			if id != nil {
				known[id.Bare()] = true
			}
		}
		groups[r.Name+"-"+r.UID] = true
		if r.Phase == actual.PhaseCreating {
			passed[r.Name] = true
		}
	}
	for _, h := range list.Quarantined {
		passed[h.Name] = true
	}
	return s.living(
		func(m *Marked) bool {
			return m.State == marker && wanted(m.Sandbox) && !passed[m.Sandbox] && !known[m.Identity.Bare()]
		},
		func(g *cgroup.Marked) bool {
			return ofState(g, marker) && wanted(g.Name) && !passed[g.Name] && !groups[g.Name+"-"+g.UID]
		})
}

// mentions says whether anything was found of a state and of a name.
func (s *Search) mentions(state string, wanted func(name string) bool) bool {
	return slices.ContainsFunc(s.claims, func(c claim) bool { return c.State == state && wanted(c.Sandbox) }) ||
		slices.ContainsFunc(s.groups, func(g cgroup.Marked) bool { return ofState(&g, state) && wanted(g.Name) })
}

// ofState says whether a group is, or may be, of a sandbox of a state directory.
func ofState(g *cgroup.Marked, state string) bool { return g.State == state || g.State == "" }

// living are the processes, and those in the groups, that have not ended since they
// were found.
func (s *Search) living(wanted func(*Marked) bool, group func(*cgroup.Marked) bool) ([]Marked, error) {
	if err := s.look(wanted); err != nil {
		return nil, err
	}
	var out []Marked
	for _, m := range s.truly(wanted) {
		if live, _ := process.LivenessOf(&m.Identity); live != process.Dead {
			out = append(out, *m)
		}
	}
	for i := range s.groups {
		g := &s.groups[i]
		if !group(g) {
			continue
		}
		members, err := s.host.inGroup(g)
		if err != nil {
			return nil, err
		}
		if !group(g) {
			continue // its mark was not there yet when the group was found
		}
		judged := func(*Marked) bool { return false }
		if g.State == "" && len(members) > 0 {
			// In a group without a mark, one that says in its arguments what it is has
			// been judged by them.
			judged = func(*Marked) bool { return true }
			if err := s.look(judged); err != nil {
				return nil, err
			}
		}
		byArguments := s.truly(judged)
		for _, m := range members {
			if !slices.ContainsFunc(out, func(o Marked) bool { return o.Identity == m.Identity }) &&
				!slices.ContainsFunc(byArguments, func(o *Marked) bool { return o.Identity == m.Identity }) {
				out = append(out, m)
			}
		}
	}
	return out, nil
}

// inGroup are the processes of a group that were not started by others in it.
func (h *host) inGroup(g *cgroup.Marked) ([]Marked, error) {
	pids, err := h.members(g)
	if err != nil || len(pids) == 0 {
		return nil, err
	}
	var out []Marked
	for _, pid := range pids {
		if pid == 0 {
			out = append(out, Marked{Role: roleMember, Sandbox: g.Name, State: g.State})
			continue
		}
		parent, err := h.status(pid, "PPid")
		if err != nil {
			return nil, err
		}
		if n, err := strconv.Atoi(parent); err == nil && n != 0 && slices.Contains(pids, n) {
			continue
		}
		m, ok, err := h.member(g, pid)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, m)
		}
	}
	// The numbers were read before there were pidfds: whose number is not there any
	// more has ended, and it may be another's by now.
	again, err := h.members(g)
	return slices.DeleteFunc(out, func(m Marked) bool { return !slices.Contains(again, m.Identity.PID) }), err
}

// member is one process of a group.
func (h *host) member(g *cgroup.Marked, pid int) (Marked, bool, error) {
	m := Marked{Role: roleMember, Sandbox: g.Name, State: g.State}
	pidfd, err := h.pidfd(pid)
	if err != nil {
		return m, false, procfs.UnlessEnded(err)
	}
	defer unix.Close(pidfd)
	if cmdline, err := h.read(pid, "cmdline"); err == nil {
		if says, ok := marks(cmdline); ok && says.Sandbox == g.Name && says.State == g.State {
			m.Role = says.Role
		}
	}
	if m.Identity, err = h.identify(pidfd, pid); err != nil {
		return m, false, procfs.UnlessEnded(err)
	}
	live, _ := process.LivenessOf(&m.Identity)
	return m, live != process.Dead, nil
}

// marked looks at one process. The pidfd is older than the look at the arguments,
// so that both are of the same process.
func (h *host) marked(pid int) (Marked, bool, error) {
	pidfd, err := h.pidfd(pid)
	if err != nil {
		return Marked{}, false, procfs.UnlessEnded(err)
	}
	defer unix.Close(pidfd)
	cmdline, err := h.read(pid, "cmdline")
	if err != nil {
		return Marked{}, false, procfs.UnlessEnded(err)
	}
	m, ok := marks(cmdline)
	if !ok {
		return Marked{}, false, nil
	}
	// The processes that a sentry runs the application in look like it: they are
	// not the first of their pid namespace. Those of a daemon in a container are
	// deeper than ours.
	ns, err := h.status(pid, "NSpid")
	if ids := strings.Fields(ns); err != nil || len(ids) != 2 || ids[1] != "1" {
		return Marked{}, false, err
	}
	m.Identity, err = h.identify(pidfd, pid)
	if err != nil {
		return Marked{}, false, procfs.UnlessEnded(err)
	}
	return m, true, nil
}

// marks reads the arguments of a sentry or gofer.
func marks(cmdline []byte) (Marked, bool) {
	// Almost no process is ours: its arguments are not worth to be split.
	if !bytes.HasPrefix(cmdline, []byte(companion.SentryName)) && !bytes.HasPrefix(cmdline, []byte(gofer.Argv0)) {
		return Marked{}, false
	}
	// One that waited for its sandbox has room for a longer command line, which is zero.
	args := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
	var m Marked
	switch args[0] {
	case companion.SentryName:
		m.Role, m.Sandbox = RoleSentry, args[len(args)-1]
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

// status is a field of the status of a process, "" if the process has ended.
func (h *host) status(pid int, key string) (string, error) {
	b, err := h.read(pid, "status")
	return procfs.Field(b, key), procfs.UnlessEnded(err)
}
