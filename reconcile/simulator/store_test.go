// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
)

// atomicWrite makes the calls of atomicfile.Write.
func (h *host) atomicWrite(t *task, dir *inode, name string, b []byte) (err error) {
	if h.is("write-in-place") {
		f, err := h.create(t, dir, name, false, true)
		if err != nil {
			return err
		}
		if err := h.write(t, f, b); err != nil {
			return err
		}
		return errors.Join(h.fsync(t, f, name), h.fsync(t, dir, "directory of "+name))
	}
	if _, err := h.lookup(t, dir, name); err != nil && !missing(err) {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	tmp := atomicfile.TempPrefix + h.newUID()
	f, err := h.create(t, dir, tmp, true, false)
	if err != nil {
		return fmt.Errorf("create temporary file for %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(h.unlink(t, dir, tmp)))
		}
	}()
	if err := h.write(t, f, b); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if !h.is("no-file-fsync") {
		if err := h.fsync(t, f, tmp); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	if err := h.rename(t, dir, tmp, dir, name); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if h.is("no-dir-fsync") {
		return nil
	}
	return h.fsync(t, dir, "directory of "+name)
}

// atomicRemove makes the calls of atomicfile.Remove.
func (h *host) atomicRemove(t *task, dir *inode, name string) error {
	if err := ignoreMissing(h.unlink(t, dir, name)); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if h.is("no-dir-fsync") {
		return nil
	}
	return h.fsync(t, dir, "directory of "+name)
}

func ignoreMissing(err error) error {
	if missing(err) {
		return nil
	}
	return err
}

// store makes the calls of actual.Store.
type store struct {
	h    *host
	root *inode
	dirs *inode
}

func (h *host) openStore(t *task) (*store, error) {
	s := &store{h: h, root: h.state}
	for _, d := range []string{"sandboxes", "trash", "requests"} {
		if err := h.mkdir(t, s.root, d); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	if !h.is("no-fsync-of-state") {
		if err := h.fsync(t, s.root, "state"); err != nil {
			return nil, err
		}
	}
	var err error
	s.dirs, err = h.lookup(t, s.root, "sandboxes")
	return s, err
}

func (s *store) claim(t *task, name string) error {
	err := s.h.mkdir(t, s.dirs, name)
	if err != nil {
		if !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("claim %s: %w", name, err)
		}
		dir, err := s.dir(t, name)
		if err != nil {
			return fmt.Errorf("claim %s: %w", name, err)
		}
		switch _, err := s.h.lookup(t, dir, "meta.json"); {
		case missing(err):
			if err := s.sweepTemps(t, dir); err != nil {
				return err
			}
		case err != nil:
			return fmt.Errorf("claim %s: %w", name, err)
		default:
			return fmt.Errorf("claim %s: %w", name, fs.ErrExist)
		}
	}
	if s.h.is("no-fsync-of-claim") {
		return nil
	}
	return s.h.fsync(t, s.dirs, "sandboxes")
}

func (s *store) sweepTemps(t *task, dir *inode) error {
	names, err := s.h.list(t, dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		if strings.HasPrefix(n, atomicfile.TempPrefix) {
			errs = append(errs, ignoreMissing(s.h.unlink(t, dir, n)))
		}
	}
	return errors.Join(errs...)
}

func (s *store) dir(t *task, name string) (*inode, error) { return s.h.lookup(t, s.dirs, name) }

func (s *store) put(t *task, r *actual.Record) error {
	b, err := actual.EncodeRecord(r)
	if err != nil {
		return err
	}
	dir, err := s.dir(t, r.Name)
	if err != nil {
		return fmt.Errorf("write record of %s: %w", r.Name, err)
	}
	if err := s.h.atomicWrite(t, dir, "meta.json", b); err != nil {
		return err
	}
	if !t.p.dead {
		s.h.check.put(r)
	}
	return nil
}

func (s *store) get(t *task, name string) (*actual.Record, *actual.Held) {
	hold := func(reason string, err error) (*actual.Record, *actual.Held) {
		return nil, &actual.Held{Name: name, Reason: reason, Message: err.Error()}
	}
	dir, err := s.dir(t, name)
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		if s.h.is("error-is-absence") {
			return nil, nil
		}
		return hold(actual.HeldUnreadable, err)
	}
	f, err := s.h.lookup(t, dir, "meta.json")
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		if s.h.is("error-is-absence") {
			return nil, nil
		}
		return hold(actual.HeldUnreadable, err)
	}
	rec, err := f.record()
	switch {
	case errors.Is(err, actual.ErrNewerRecord):
		return hold(actual.HeldNewer, err)
	case err != nil && s.h.is("corrupt-is-absence"):
		return nil, nil
	case err != nil:
		return hold(actual.HeldCorrupt, err)
	case rec.Name != name:
		return hold(actual.HeldCorrupt, errors.New("another's"))
	}
	return rec, nil
}

func (s *store) listing(t *task) (*actual.Listing, error) {
	names, err := s.h.list(t, s.dirs)
	if err != nil {
		return nil, err
	}
	l := &actual.Listing{}
	for _, n := range names {
		switch rec, held := s.get(t, n); {
		case held != nil:
			l.Held = append(l.Held, *held)
		case rec != nil:
			l.Records = append(l.Records, rec)
		case t.p.dead:
			return nil, errDead
		default:
			l.Aborted = append(l.Aborted, n)
		}
	}
	return l, nil
}

// remove makes the calls of Store.Remove.
func (s *store) remove(t *task, name string) error {
	trash, err := s.h.lookup(t, s.root, "trash")
	if err != nil {
		return err
	}
	there := name + "." + s.h.newUID()
	delete(s.h.check.puts, name)
	if err := s.h.rename(t, s.dirs, name, trash, there); err != nil {
		return ignoreMissing(err)
	}
	if err := errors.Join(s.h.fsync(t, s.dirs, "sandboxes"), s.h.fsync(t, trash, "trash")); err != nil {
		return err
	}
	return s.removeTree(t, trash, there)
}

func (s *store) removeTree(t *task, dir *inode, name string) error {
	n, err := s.h.lookup(t, dir, name)
	if err != nil {
		return ignoreMissing(err)
	}
	if n.isDir {
		names, err := s.h.list(t, n)
		if err != nil {
			return err
		}
		var errs []error
		for _, c := range names {
			errs = append(errs, s.removeTree(t, n, c))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return ignoreMissing(s.h.unlink(t, dir, name))
}

func (s *store) sweepTrash(t *task) error {
	trash, err := s.h.lookup(t, s.root, "trash")
	if err != nil {
		return err
	}
	names, err := s.h.list(t, trash)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		errs = append(errs, s.removeTree(t, trash, n))
	}
	return errors.Join(errs...)
}

func requestFile(r *actual.Request) string {
	if r.Kind == actual.RequestRestart {
		return r.Kind + "." + r.Name + ".json"
	}
	return r.Kind + ".json"
}

func (s *store) putRequest(t *task, r *actual.Request) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	dir, err := s.h.lookup(t, s.root, "requests")
	if err != nil {
		return err
	}
	if !s.h.is("requests-unlocked") {
		s.h.wait(context.Background(), t, 10*time.Second, func() bool { return s.h.requestsFree() })
		if err := s.lockRequests(t); err != nil {
			return err
		}
		defer s.unlockRequests(t)
	}
	return s.h.atomicWrite(t, dir, requestFile(r), append(b, '\n'))
}

// lockRequests makes the calls of actual's lockRequests. The lock ends with the
// program, if not before.
func (s *store) lockRequests(t *task) error {
	return s.h.call(t, harmless, "flock requests", func(bool) error {
		if !s.h.requestsFree() {
			return unix.EWOULDBLOCK
		}
		s.h.requests = t.p
		return nil
	})
}

func (h *host) requestsFree() bool { return h.requests == nil || h.requests.dead }

func (s *store) unlockRequests(t *task) {
	if !t.p.dead && s.h.requests == t.p {
		s.h.requests = nil
	}
}

func (s *store) dropRequest(t *task, r *actual.Request) error {
	dir, err := s.h.lookup(t, s.root, "requests")
	if err != nil {
		return err
	}
	if !s.h.is("drop-unsynced") {
		if err := s.syncDone(t, r.Name); err != nil {
			return err
		}
	}
	if !s.h.is("requests-unlocked") {
		if err := s.lockRequests(t); err != nil {
			return nil //nolint:nilerr // another time
		}
		defer s.unlockRequests(t)
	}
	f, err := s.h.lookup(t, dir, requestFile(r))
	if missing(err) {
		return nil
	}
	if err == nil {
		var now actual.Request
		if json.Unmarshal(f.data, &now) == nil && now.Token != r.Token {
			return nil
		}
	}
	return s.h.atomicRemove(t, dir, requestFile(r))
}

// syncDone makes the calls of Store.syncDone.
func (s *store) syncDone(t *task, name string) error {
	if name != "" {
		dir, err := s.dir(t, name)
		switch {
		case err == nil:
			return s.h.fsync(t, dir, "directory of "+name)
		case !missing(err):
			return err
		}
	}
	return s.h.fsync(t, s.dirs, "sandboxes")
}

func (s *store) requests(t *task) ([]actual.Request, error) {
	dir, err := s.h.lookup(t, s.root, "requests")
	if err != nil {
		return nil, ignoreMissing(err)
	}
	names, err := s.h.list(t, dir)
	if err != nil {
		return nil, err
	}
	var out []actual.Request
	for _, n := range names {
		if !strings.HasSuffix(n, ".json") || strings.HasPrefix(n, ".") {
			continue
		}
		f, err := s.h.lookup(t, dir, n)
		if err != nil {
			continue
		}
		var r actual.Request
		if json.Unmarshal(f.data, &r) == nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// readExit makes the calls of Store.ReadExit and goferLeft.
func (s *store) readExit(t *task, rec *actual.Record, file string) (*actual.Exit, error) {
	dir, err := s.dir(t, rec.Name)
	if err != nil {
		return nil, err
	}
	f, err := s.h.lookup(t, dir, file)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	uid, attempt := rec.UID, rec.Attempt
	if s.h.is("exit-of-any-attempt") {
		var r actual.ExitRecord
		if json.Unmarshal(f.data, &r) == nil {
			uid, attempt = r.UID, r.Attempt
		}
	}
	return actual.DecodeExit(f.data, uid, attempt)
}

// daemonInfo is what a daemon remembers for the next.
func (s *store) daemonInfo(t *task) (*actual.DaemonInfo, error) {
	f, err := s.h.lookup(t, s.root, "daemon.json")
	if err != nil {
		return nil, ignoreMissing(err)
	}
	d := new(actual.DaemonInfo)
	if err := json.Unmarshal(f.data, d); err != nil {
		return nil, err
	}
	return d, nil
}

func (s *store) putDaemonInfo(t *task, d *actual.DaemonInfo) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return s.h.atomicWrite(t, s.root, "daemon.json", append(b, '\n'))
}

// Calls on processes.

// open makes the calls of actual.Open: a handle of the process that was
// recorded, and of no other.
func (h *host) open(t *task, id actual.Identity) (p *proc, err error) {
	if id.BootID != h.boot && !h.is("liveness-by-pid") {
		return nil, actual.ErrGone
	}
	err = h.call(t, looks, fmt.Sprintf("pidfd_open %d", id.PID), func(bool) error {
		if p = h.procs[id.PID]; p == nil {
			return actual.ErrGone
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	switch {
	case h.is("liveness-by-pid"):
	case h.is("liveness-by-start-time"):
		if p.id.StartTime != id.StartTime {
			return nil, actual.ErrGone
		}
	case p.id.Inode != id.Inode:
		return nil, actual.ErrGone
	}
	return p, nil
}

func aliveness(p *proc) actual.Liveness {
	if p.dead {
		return actual.Dead
	}
	return actual.Alive
}

// liveness makes the calls of launcher.Liveness.
func (h *host) liveness(t *task, id *actual.Identity) (actual.Liveness, error) {
	if id == nil {
		return actual.None, nil
	}
	p, err := h.open(t, *id)
	switch {
	case errors.Is(err, actual.ErrGone):
		return actual.Dead, nil
	case err != nil && h.is("unknown-is-dead"):
		return actual.Dead, nil
	case err != nil:
		return actual.Unknown, err
	}
	return aliveness(p), nil
}

// kill sends SIGKILL by a handle. Dying takes a moment.
func (h *host) sigkill(t *task, p *proc, name string) error {
	return h.call(t, harmless, fmt.Sprintf("kill %d", p.id.PID), func(bool) error {
		h.stats.Kills++
		h.writes++
		if p.reaped {
			return unix.ESRCH
		}
		if p.role == "stranger" || p.name != name {
			h.breach("I3: a signal for a process of %s reached pid %d, which is of %s %s", name, p.id.PID, p.role, p.name)
		}
		if !p.dead {
			h.check.signalled(h, p)
			p.killed = true
		}
		return nil
	})
}

func sortedRequests(rs []actual.Request) []actual.Request {
	slices.SortFunc(rs, func(a, b actual.Request) int { return strings.Compare(a.Kind+a.Name, b.Kind+b.Name) })
	return rs
}
