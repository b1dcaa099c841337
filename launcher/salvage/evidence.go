// SPDX-License-Identifier: Apache-2.0

package salvage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/gofer/sandboxlog"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/procfs"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/wire"
)

// The two processes of a sandbox.
const (
	RoleSentry = "sentry"
	roleGofer  = "gofer"
)

// Evidence is what is known of a sandbox without its record.
type Evidence struct {
	Name string
	// Processes are the live sentries and gofers that have something of the
	// sandbox's directory open, sentries first. Others are not, whatever they
	// have open.
	Processes []Found
	// Copy is the second copy of the record, nil if there is none that can be
	// read.
	Copy *actual.Record
	// Gap is what keeps the record from being put back from the copy, "" if
	// everything agrees.
	Gap string

	unseen error // why its files could not be looked at: then nobody knows what lives
}

// Found is a process that belongs to a sandbox by evidence.
type Found struct {
	Role     string // sentry or gofer
	Sandbox  string
	Identity process.Identity
	// Renamed says that it does not say what it is: that it is the first process of
	// its namespace in the cgroup of a sandbox does.
	Renamed bool
	// Cgroup is the name of its group among those of sandboxes, "" if it is in
	// none. It is NAME-UID, and the kernel says so.
	Cgroup string
	// UID and Attempt are what a sentry was started with. The sentry says so itself.
	UID     string
	Attempt int64
}

// String gives "sentry (pid 7)".
func (f *Found) String() string { return fmt.Sprintf("%s (pid %d)", f.Role, f.Identity.PID) }

// pid is that of the first process of a role, 0 if there is none.
func (e *Evidence) pid(role string) int {
	for i := range e.Processes {
		if e.Processes[i].Role == role {
			return e.Processes[i].Identity.PID
		}
	}
	return 0
}

// SentryPID is the pid of the sentry that was found, 0 if none was.
func (e *Evidence) SentryPID() int { return e.pid(RoleSentry) }

// GoferPID is the pid of the gofer that was found, 0 if none was.
func (e *Evidence) GoferPID() int { return e.pid(roleGofer) }

// List describes the processes: "sentry (pid 7) and gofer (pid 9)", or "no process".
func (e *Evidence) List() string {
	words := make([]string, len(e.Processes))
	for i := range e.Processes {
		words[i] = e.Processes[i].String()
	}
	switch n := len(words); n {
	case 0:
		return "no process"
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
}

// Examine finds what there is of sandboxes without their records, in one look at
// all processes. It changes nothing and signals nobody.
func Examine(ctx context.Context, store *actual.Store, names ...string) (map[string]*Evidence, error) {
	out := make(map[string]*Evidence, len(names))
	known := &openFiles{files: map[inode]string{}, dirs: map[string]place{}}
	for _, name := range names {
		e := &Evidence{Name: name}
		out[name] = e
		dir, err := store.Dir(name)
		if err != nil {
			e.Gap, e.unseen = err.Error(), err
			continue
		}
		err = known.add(dir, name)
		dir.Close()
		if err != nil {
			// It hides no other.
			err = fmt.Errorf("look at its files: %w", err)
			e.Gap, e.unseen = err.Error(), err
			continue
		}
		if e.Copy, err = store.Copy(name); err != nil {
			e.Gap = "there is no second copy of its record: " + err.Error()
		}
	}
	found, err := Find(known.owner, nil)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		out[f.Sandbox].Processes = append(out[f.Sandbox].Processes, f)
	}
	for _, e := range out {
		slices.SortFunc(e.Processes, func(a, b Found) int {
			return cmp.Or(-cmp.Compare(a.Role, b.Role), cmp.Compare(a.Identity.PID, b.Identity.PID))
		})
		if e.Gap == "" {
			e.Gap = e.compare(ctx, store)
		}
	}
	return out, nil
}

// compare says what does not agree between the copy of the record and what
// lives, "" if nothing.
func (e *Evidence) compare(ctx context.Context, store *actual.Store) string {
	c := e.Copy
	if len(e.Processes) == 0 {
		return "none of its processes is running"
	}
	if len(e.Processes) != 2 || e.SentryPID() == 0 || e.GoferPID() == 0 {
		return fmt.Sprintf("found %s, expected one sentry and one gofer", e.List())
	}
	if c.Phase != actual.PhaseRunning || c.App().OCI != nil || c.Sentry == nil || c.Gofer == nil {
		return "the second copy of its record is not of a sandbox that runs"
	}
	own := c.Name + "-" + c.UID
	for i, id := range []*process.Identity{c.Sentry, c.Gofer} {
		f := &e.Processes[i]
		switch {
		case f.Identity.Bare() != id.Bare():
			return fmt.Sprintf("the second copy of its record names another %s (pid %d) than the one that is running (pid %d)", f.Role, id.PID, f.Identity.PID)
		case len(c.Cgroups) > 0 && f.Cgroup != own:
			return fmt.Sprintf("the %s is in the cgroup %q, expected %q", f.Role, f.Cgroup, own)
		case f.Role == RoleSentry && (f.UID != c.UID || f.Attempt != c.Attempt):
			return fmt.Sprintf("the sentry was started as attempt %d of %s, expected attempt %d of %s", f.Attempt, f.UID, c.Attempt, c.UID)
		}
	}
	conn, err := sentry.ConnectTo(ctx, store, c)
	if err != nil {
		return err.Error()
	}
	conn.Close()
	return ""
}

type inode struct{ dev, ino uint64 }

// place is the directory of a sandbox and the filesystems that its files are on:
// more than one where the state is on an overlay.
type place struct {
	name string
	devs map[uint64]bool
}

// openFiles are the files of sandboxes, and their directories by path.
type openFiles struct {
	files map[inode]string
	dirs  map[string]place
}

// add adds the files below a directory, and where it is.
func (o *openFiles) add(dir *os.File, name string) error {
	self := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd()))
	at, err := os.Readlink(self)
	if err != nil {
		return err
	}
	devs := map[uint64]bool{}
	o.dirs[at] = place{name, devs}
	if err := addEntries(dir, name, o.files, devs); err != nil {
		return err
	}
	// What a gofer was given is not walked: it may be anything. Its directory is
	// enough, which it holds.
	logs, err := untrusted.OpenDir(int(dir.Fd()), sandboxlog.Dir)
	if err != nil {
		return nil //nolint:nilerr // it has not run yet
	}
	defer logs.Close()
	return addEntries(logs, name, o.files, devs)
}

// addEntries adds the entries of a directory that only root can write.
func addEntries(dir *os.File, name string, files map[inode]string, devs map[uint64]bool) error {
	names, err := untrusted.List(int(dir.Fd()), sandboxlog.MaxEntries)
	if err != nil {
		return err
	}
	for _, n := range append(names, ".") {
		var st unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		files[inode{st.Dev, st.Ino}] = name
		devs[st.Dev] = true
	}
	return nil
}

// owner says which sandbox a file is of, also one that has been removed.
func (o *openFiles) owner(st *unix.Stat_t, link string) string {
	if name, ok := o.files[inode{st.Dev, st.Ino}]; ok {
		return name
	}
	// Where a file was that has been removed only its path tells. A path says
	// nothing of one that is there, nor of one on another filesystem: in another
	// mount namespace, such as a container's, it leads to something else.
	target, err := os.Readlink(link)
	if err != nil || st.Nlink > 0 {
		return ""
	}
	for d := path.Dir(target); len(d) > 1; d = path.Dir(d) {
		if p, ok := o.dirs[d]; ok && p.devs[st.Dev] {
			return p.name
		}
	}
	return ""
}

// Find finds the sentries and gofers that have a file of a sandbox open. The owner
// says which sandbox a file is of, "" if of none; link is the file below /proc.
// hidden is asked about the error of a process that can't be looked at: whether to pass
// over it. nil passes over none, for callers to whom what they don't see is absent.
func Find(owner func(st *unix.Stat_t, link string) string, hidden func(error) bool) ([]Found, error) {
	pids, err := procfs.PIDs()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []Found
	for _, pid := range pids {
		f, err := belongs(pid, owner)
		if err != nil && hidden != nil && hidden(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if f != nil {
			out = append(out, *f)
		}
	}
	return out, nil
}

// belongs says what a process is of a sandbox, nil of every other process: it has
// the name of a sentry or gofer, or is in the cgroup of a sandbox, and has a file of
// it open. The identity is taken through a pidfd that is older than the look at the
// files, so that it is of the process that was looked at.
func belongs(pid int, owner func(*unix.Stat_t, string) string) (*Found, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, nil //nolint:nilerr // it has ended
	}
	defer unix.Close(pidfd)
	cmdline, err := procfs.Read(pid, "cmdline")
	if err != nil {
		return nil, nil //nolint:nilerr // it has ended
	}
	f := &Found{Cgroup: groupOf(pid)}
	args := strings.Split(string(cmdline), "\x00")
	switch {
	case args[0] == companion.SentryName:
		f.Role = RoleSentry
		f.UID, f.Attempt = startedAs(args)
	case args[0] == gofer.Argv0:
		f.Role = roleGofer
	case f.Cgroup != "" && isInit(pid):
		// A sentry may call itself whatever it likes once it was taken over. It
		// stays the first process of its namespace, which the processes that it
		// runs the application in are not: they end with it.
		f.Role, f.Renamed = RoleSentry, true
	default:
		return nil, nil
	}
	if f.Sandbox, err = holds(pid, owner); f.Sandbox == "" || err != nil {
		return nil, err
	}
	if f.Identity, err = process.Identify(pidfd, pid); err != nil {
		return nil, procfs.UnlessEnded(fmt.Errorf("identify process %d: %w", pid, err))
	}
	return f, nil
}

// holds is the sandbox that a process has a file of open.
func holds(pid int, owner func(*unix.Stat_t, string) string) (string, error) {
	fds, err := os.ReadDir(procfs.Path(pid, "fd"))
	if err != nil {
		return "", procfs.UnlessEnded(err)
	}
	for _, fd := range fds {
		link := procfs.Path(pid, "fd/"+fd.Name())
		var st unix.Stat_t
		if unix.Stat(link, &st) != nil {
			continue
		}
		if name := owner(&st, link); name != "" {
			return name, nil
		}
	}
	return "", nil
}

// groupOf is the name of the group of a sandbox that a process is in.
func groupOf(pid int) string {
	b, err := procfs.Read(pid, "cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		// ID:CONTROLLERS:PATH
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 && cgroup.NameOf(f[2]) != "" {
			return cgroup.NameOf(f[2])
		}
	}
	return ""
}

// isInit says whether a process is the first one of a pid namespace below ours.
func isInit(pid int) bool {
	ids := strings.Fields(procfs.Status(pid, "NSpid"))
	return len(ids) > 1 && ids[len(ids)-1] == "1"
}

// startedAs reads what a sentry was started with out of its command line.
func startedAs(args []string) (uid string, attempt int64) {
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, "--"+wire.FlagUID+"="); ok {
			uid = v
		}
		if v, ok := strings.CutPrefix(a, "--"+wire.FlagAttempt+"="); ok {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil {
				attempt = n
			}
		}
	}
	if len(uid) > 64 {
		uid = ""
	}
	return untrusted.Line(uid, 64), attempt
}

// Unknown says why nobody knows what lives of the sandbox, nil if the processes that
// were found are all.
func (e *Evidence) Unknown() error {
	if e.unseen == nil {
		return nil
	}
	return fmt.Errorf("which of its processes are running can't be told: %w; try again, or, if none of them is running, move what is in the place of its directory away", e.unseen)
}

// Leaves is a record of what a sandbox leaves on the host besides the groups its
// processes are in: the copy, if it is of what lived. nil if that is not known.
func (e *Evidence) Leaves() *actual.Record {
	if e.Copy == nil || e.Copy.App().OCI != nil || !e.isOf(e.Copy.Name+"-"+e.Copy.UID) {
		return nil
	}
	return e.Copy.Clone()
}

// isOf says whether no process that was found is in another group.
func (e *Evidence) isOf(group string) bool {
	for i := range e.Processes {
		if g := e.Processes[i].Cgroup; g != "" && g != group {
			return false
		}
	}
	return true
}
