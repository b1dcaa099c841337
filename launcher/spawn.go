// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// child is a process we started, held at its start gate.
type child struct {
	pid      int
	pidfd    *os.File
	gate     *os.File // write end
	identity actual.Identity
}

// spawn describes a child to start.
type spawn struct {
	path  string
	bin   *os.File // what to execute, if not path: that very file
	args  []string
	attr  *syscall.SysProcAttr
	fds   *donation
	gate  *os.File         // write end of the gate, taken over
	err   *os.File         // stderr, not taken over
	group int              // descriptor of a v2 cgroup to start in, or -1
	netns *netns.Namespace // to start in; nil leaves it to attr
}

// newGate makes a start gate, gives its read end to the child and returns the
// write end. It is close-on-exec, so no other child inherits it: the end of
// this process is the end of the gate.
func newGate(d *donation) (w *os.File, fd int, err error) {
	r, w, err := pipe()
	if err != nil {
		return nil, -1, fmt.Errorf("create start gate: %w", err)
	}
	return w, d.give(r), nil
}

// oneStart is held while a process is started. Go starts several at a time, and
// writes the id mappings of each through descriptors of the host's /proc that are
// not close-on-exec: another child would keep them.
var oneStart sync.Mutex

// startHeld starts the child in a session of its own, with an empty
// environment and exactly the donated descriptors. The donation is closed in
// every case.
func startHeld(s spawn) (_ *child, err error) {
	defer func() {
		err = errors.Join(err, s.fds.close())
		if err != nil {
			err = errors.Join(err, s.gate.Close())
		}
	}()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	stderr := s.err
	if stderr == nil {
		stderr = null
	}
	var pidfd int
	s.attr.PidFD = &pidfd
	s.attr.Setsid = true // a signal to the daemon's terminal is not for sandboxes
	if s.group >= 0 {
		s.attr.UseCgroupFD, s.attr.CgroupFD = true, s.group
	}
	path := s.path
	if s.bin != nil {
		bin, err := s.aside()
		if err != nil {
			return nil, err
		}
		defer bin.Close()
		path = fdPath(bin)
	}
	var p *os.Process
	start := func() (err error) {
		oneStart.Lock()
		defer oneStart.Unlock()
		attr := &os.ProcAttr{
			Dir:   "/",
			Env:   crashpoint.Env(), // nothing, but in a test
			Files: append([]*os.File{null, null, stderr}, s.fds.files...),
			Sys:   s.attr,
		}
		p, err = os.StartProcess(path, s.args, attr)
		if (errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)) && s.attr.UseCgroupFD {
			// Its group was removed, for it was empty. It waits at its gate wherever it
			// is, and joins the group when that has been made again.
			s.attr.UseCgroupFD = false
			p, err = os.StartProcess(path, s.args, attr)
		}
		return err
	}
	if s.netns != nil {
		err = s.netns.Do(start)
		if err != nil && p != nil {
			// It runs, but the way back failed.
			err = errors.Join(err, p.Kill())
		}
	} else {
		err = start()
	}
	if err != nil {
		switch {
		case errors.Is(err, unix.EPERM):
			// The path in it would be blamed, which is not at fault.
			return nil, fmt.Errorf("start %s: %w (are user namespaces forbidden here? `sandboxctl doctor` tells)", s.args[0], err)
		case errors.Is(err, unix.ENOSPC):
			return nil, fmt.Errorf("start %s: %w (is a limit of sysctl user.max_*_namespaces reached? Every sandbox needs two user namespaces)", s.args[0], err)
		}
		return nil, fmt.Errorf("start %s: %w", s.args[0], err)
	}
	c := &child{pid: p.Pid, gate: s.gate, pidfd: os.NewFile(uintptr(pidfd), "pidfd")}
	if pidfd < 0 {
		// Kernels before 5.2. Nothing here can be safe without.
		return nil, errors.Join(terminalf("start %s: the kernel gives no pidfd", s.args[0]), p.Kill())
	}
	if err := p.Release(); err != nil {
		return nil, errors.Join(fmt.Errorf("release %s: %w", s.args[0], err), c.abandon())
	}
	c.identity, err = actual.Identify(pidfd, c.pid)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("identify %s: %w", s.args[0], err), c.abandon())
	}
	// The memory of the sandbox must not end in a core dump.
	if err := unix.Prlimit(c.pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("forbid core dumps of %s: %w", s.args[0], err), c.abandon())
	}
	return c, nil
}

// aside returns a copy of bin under a number that the child uses for nothing
// else: between fork and exec it moves its descriptors to where they belong, and
// would otherwise execute one of them.
func (s *spawn) aside() (*os.File, error) {
	most := firstDonated + len(s.fds.files)
	for _, f := range s.fds.files {
		most = max(most, int(f.Fd()))
	}
	// Those in the way are moved above all others first, each by one.
	fd, err := unix.FcntlInt(s.bin.Fd(), unix.F_DUPFD_CLOEXEC, most+len(s.fds.files)+8)
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor of %s: %w", s.path, err)
	}
	return os.NewFile(uintptr(fd), s.path), nil
}

// open lets the child go. It is known by now.
func (c *child) open(b byte) error {
	_, err := c.gate.Write([]byte{b})
	err = errors.Join(err, c.gate.Close())
	c.gate = nil
	if err != nil {
		return fmt.Errorf("open start gate: %w", err)
	}
	return nil
}

// SandboxOOMScore is how likely the host's kernel is to kill the processes of a
// manifest's sandbox, and its hooks, when it runs out of memory: before a service
// of the host that holds less than half of it.
const SandboxOOMScore = 500

// setOOMScore says how likely the host's kernel is to kill a process when it
// runs out of memory. It must be a child of this one that has not been waited
// for: then its number is its own.
func setOOMScore(pid, adj int) error {
	f, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set OOM score: %w", err)
	}
	_, err = f.WriteString(strconv.Itoa(adj))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set OOM score: %w", err)
	}
	return nil
}

// abandon kills a child that never got as far as the record, and reaps it.
func (c *child) abandon() error {
	var errs []error
	if c.gate != nil {
		errs = append(errs, c.gate.Close())
		c.gate = nil
	}
	fd := int(c.pidfd.Fd())
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		errs = append(errs, fmt.Errorf("kill: %w", err))
	}
	var info unix.Siginfo
	if err := retryEINTR(func() error { return unix.Waitid(unix.P_PIDFD, fd, &info, unix.WEXITED, nil) }); err != nil && !errors.Is(err, unix.ECHILD) {
		errs = append(errs, fmt.Errorf("reap: %w", err))
	}
	return errors.Join(append(errs, c.pidfd.Close())...)
}

func retryEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Namespaces that both children get new and empty.
const childNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// sentryAttr isolates the sentry. With the host's network or direct file
// access it needs capabilities over host objects and stays in the host's user
// namespace, where it drops all but those itself; otherwise it becomes nobody
// in a user namespace of its own, and the capabilities it enters its chroot
// with were never good for anything outside of it.
func sentryAttr(st *setup.Setup) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: childNamespaces | unix.CLONE_NEWCGROUP}
	if !st.HostNetwork && st.NetNS == "" {
		attr.Cloneflags |= unix.CLONE_NEWNET
	}
	if st.HostUserns() {
		return attr
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: wire.Nobody, HostID: wire.Nobody, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: wire.Nobody, HostID: wire.Nobody, Size: 1}}
	// It becomes nobody by itself (wire.FlagNobody), after exec: nobody could
	// not even reach a binary below a home directory that is 0700.
	attr.GidMappingsEnableSetgroups = true
	// CAP_SETPCAP is left out: with it gVisor clears the bounding set by 41 calls
	// on all threads, which took 5 ms of a start. The set stays full, and is good
	// for nothing: the sentry ends up without a capability, with no_new_privs, and
	// its filter has no execve.
	attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_SETUID, unix.CAP_SETGID}
	return attr
}

// goferAttr isolates the gofer. It is root of a user namespace of its own, also
// where ids stay as they are: a gofer that was taken over has power over the
// files of the ids that are mapped, and none that the kernel grants to the host's
// root only (file handles, mounts, modules, the host's namespaces).
func goferAttr(maps *setup.IDMaps) (*syscall.SysProcAttr, error) {
	if maps == nil {
		var err error
		if maps, err = identityMaps(); err != nil {
			return nil, err
		}
	}
	attr := &syscall.SysProcAttr{Cloneflags: childNamespaces | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP}
	mapUsers(maps, attr)
	return attr, nil
}
