// SPDX-License-Identifier: Apache-2.0

// Package process names processes so that a name never comes to mean another one, and
// is the one place that signals them: by a pidfd that was compared with what is on
// record. What can't be found out is Unknown, of which nothing follows.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/remember"
)

// ErrGone says that the process of an Identity is proven not to exist any
// more: its pid is free, is another process's, or it lived in another boot.
var ErrGone = errors.New("process is gone")

// pidfsMagic is the filesystem of pidfds since Linux 6.9. Before, all pidfds
// share one inode, which says nothing.
const pidfsMagic = 0x50494446

// BootID identifies the running boot of the host.
func BootID() (string, error) { return bootID() }

var bootID = remember.Success(func() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
})

// pidNamespace is the inode of this program's pid namespace.
var pidNamespace = remember.Success(func() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("look at the pid namespace: %w", err)
	}
	return st.Ino, nil
})

// Identify returns the identity of the live process of a pidfd that was taken
// when it was cloned, or while it was known not to have been reaped.
func Identify(pidfd, pid int) (Identity, error) {
	if pid <= 1 {
		return Identity{}, fmt.Errorf("identify process: %d is not a pid", pid)
	}
	boot, err := BootID()
	if err != nil {
		return Identity{}, err
	}
	inode, err := pidfdInode(pidfd)
	if err != nil {
		return Identity{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	start, err := startTime(pid)
	if err != nil {
		return Identity{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	ns, err := pidNamespace()
	if err != nil {
		return Identity{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	return Identity{PID: pid, Inode: inode, StartTime: start, BootID: boot, PIDNamespace: ns}, nil
}

// Handle is a verified handle of one process: it can't come to mean another.
type Handle struct{ Pidfd }

// Open returns a handle of the process of id, ErrGone if that is proven not to
// exist, or another error if nothing is proven. The handle of a zombie is
// opened too; Alive tells.
func Open(id Identity) (*Handle, error) { return Host.Open(id) }

// Open is the function Open, of these processes.
func (ps Processes) Open(id Identity) (*Handle, error) {
	if id.PID <= 1 {
		// A negative pid is a group and 1 is init: no record may name them.
		return nil, fmt.Errorf("open process: pid %d is not one of a sandbox", id.PID)
	}
	boot, err := ps.BootID()
	if err != nil {
		return nil, err
	}
	if id.BootID != boot {
		return nil, ErrGone
	}
	ns, err := ps.PIDNamespace()
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	if id.PIDNamespace != 0 && ns != id.PIDNamespace {
		return nil, fmt.Errorf("open process %d: it is the number of a process in another pid namespace: start this program where the sandbox was started", id.PID)
	}
	fd, err := ps.PidfdOpen(id.PID)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, ErrGone
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT):
		// The number now names a thread that leads no process: the process
		// that led it is gone.
		return nil, ErrGone
	case err != nil:
		return nil, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	if err := ps.verify(fd, id); err != nil {
		fd.Close()
		return nil, err
	}
	return &Handle{fd}, nil
}

// Through returns what a function makes of the pidfd of the process of id, its network namespace
// for one: nothing can have been put in the place of a path, or of a number, since. The pidfd is
// closed then.
func Through[T any](id Identity, of func(pidfd int) (T, error)) (T, error) {
	h, err := Open(id)
	if err != nil {
		var none T
		return none, fmt.Errorf("process %d: %w", id.PID, err)
	}
	defer h.Close()
	return of(h.FD())
}

// verify returns nil if the pidfd is of the process of id. The pidfd holds the
// pid's struct, so that what is found out now stays true of it.
func (ps Processes) verify(fd Pidfd, id Identity) error {
	inode, err := fd.Inode()
	if err != nil {
		return fmt.Errorf("verify process %d: %w", id.PID, err)
	}
	if inode != 0 && id.Inode != 0 {
		if inode != id.Inode {
			return ErrGone
		}
		return nil
	}
	start, err := ps.StartTime(id.PID)
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH):
		return ErrGone
	case err != nil:
		return fmt.Errorf("verify process %d: %w", id.PID, err)
	case start != id.StartTime:
		return ErrGone
	}
	return nil
}

// pidfdInode is the inode of a pidfd, or 0 where inodes do not tell processes
// apart.
func pidfdInode(fd int) (uint64, error) {
	tell, err := inodesTell(fd)
	if err != nil || !tell {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("stat pidfd: %w", err)
	}
	return st.Ino, nil
}

// pidfsSeen says that a pidfd of this kernel was on pidfs. Then all are.
var pidfsSeen atomic.Bool

// inodesTell says whether inodes of pidfds tell processes apart. It asks the kernel once:
// a look at a fleet opens hundreds of pidfds.
func inodesTell(pidfd int) (bool, error) {
	if pidfsSeen.Load() {
		return true, nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(pidfd, &fs); err != nil {
		return false, fmt.Errorf("stat filesystem of pidfd: %w", err)
	}
	if fs.Type == pidfsMagic {
		pidfsSeen.Store(true)
	}
	return fs.Type == pidfsMagic, nil
}

// startTime is field 22 of /proc/PID/stat, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// parseStat reads the start time out of /proc/PID/stat. The second field is
// the program's name in parentheses, which the program chooses: it may hold
// spaces and parentheses, so fields count from the last one.
func parseStat(b []byte) (uint64, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, errors.New("parse process stat: no program name")
	}
	fields := bytes.Fields(b[i+1:])
	const index = 22 - 3 // the state, field 3, is the first of these
	if len(fields) <= index {
		return 0, fmt.Errorf("parse process stat: %d fields", len(fields)+2)
	}
	t, err := strconv.ParseUint(string(fields[index]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse process stat: %w", err)
	}
	return t, nil
}

// Alive tells whether the process lives. A zombie is Dead, although it can be
// signalled: only its parent's interest is left of it.
func (p *Handle) Alive() Liveness {
	switch dead, err := p.Dead(); {
	case err != nil:
		return Unknown
	case dead:
		return Dead
	}
	return Alive
}

// Signal sends a signal to the process, and to no other: ESRCH if it has been
// reaped.
func (p *Handle) Signal(sig unix.Signal) error {
	if err := p.Pidfd.Signal(sig); err != nil {
		return fmt.Errorf("send %s: %w", unix.SignalName(sig), err)
	}
	return nil
}

func (p pidfd) Signal(sig unix.Signal) error {
	return unix.PidfdSendSignal(int(p), sig, nil, 0)
}

// Reap collects a dead child of this program by pidfd, so that it does not
// stay a zombie. It reports whether there was one to collect; a process that
// is not a child, is alive, or was collected before is none.
func Reap(pidfd int) bool {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && info.Signo != 0
	}
}

// ErrUnknownProcess says that a recorded process is neither proven alive nor proven
// dead. It is not signalled and its sandbox not removed.
var ErrUnknownProcess = errors.New("state of a recorded process is unknown")

// LivenessOf looks at one recorded process, None for nil. The error says why it is
// Unknown.
func LivenessOf(id *Identity) (Liveness, error) { return Host.LivenessOf(id) }

// LivenessOf is the function LivenessOf, of these processes.
func (ps Processes) LivenessOf(id *Identity) (Liveness, error) {
	if id == nil {
		return None, nil
	}
	p, err := ps.Open(*id)
	switch {
	case errors.Is(err, ErrGone):
		return Dead, nil
	case err != nil:
		return Unknown, err
	}
	defer p.Close()
	return p.Alive(), nil
}
