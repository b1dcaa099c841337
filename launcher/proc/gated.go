// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/netns"
)

// Child is a process that this one has started, gated. Its owner calls either close
// or abandon.
type Child struct {
	// PID is its number in this process's pid namespace.
	PID int
	// PIDFD refers to it, whatever becomes of its number.
	PIDFD *os.File
	// Identity is what goes on record.
	Identity process.Identity
	// InGroup says that it was started in the group of CgroupFD.
	InGroup bool

	// Waited says that it had waited before it became what it is. Then it may have started
	// processes, which are where it was.
	Waited bool

	gate *os.File // write end; nil once it was opened
	// waits says that it has not been told what to become, and gate is the socket to tell it.
	waits bool
}

// Program describes a child to start.
type Program struct {
	// Path is what to execute, and names it in errors.
	Path string
	// Binary, if it is not nil, is executed instead: that very file. The caller
	// closes it.
	Binary *os.File
	// Args is its command line, with the name of the program.
	Args []string
	// Attr says in which namespaces it starts, and as whom. It is written to.
	Attr *syscall.SysProcAttr
	// Donation is what it inherits as descriptors 3 and up. It is closed in every case.
	Donation *Donation
	// Gate is the write end of its gate, of NewGate; it is taken over.
	Gate *os.File
	// Stderr is its descriptor 2; nil is /dev/null. The caller closes it.
	Stderr *os.File
	// CgroupFD is the descriptor of a v2 cgroup to start in, or -1.
	CgroupFD int
	// Netns is a network namespace to start in; nil leaves it to Attr.
	Netns *netns.Namespace
}

// NewGate makes a start gate, gives its read end to the child and returns the
// write end. It is close-on-exec, so no other child inherits it: the end of
// this process is the end of the gate.
func NewGate(d *Donation) (w *os.File, fd int, err error) {
	r, w, err := Pipe()
	if err != nil {
		return nil, -1, fmt.Errorf("create start gate: %w", err)
	}
	return w, d.Give(r), nil
}

// oneStart is held while a process is started. Go starts several at a time, and
// writes the id mappings of each through descriptors of the host's /proc that are
// not close-on-exec: another child would keep them.
var oneStart sync.Mutex

// StartCommand is cmd.Start beside starts of gated children: none of the two
// inherits descriptors of the other.
func StartCommand(cmd *exec.Cmd) error {
	oneStart.Lock()
	defer oneStart.Unlock()
	return cmd.Start()
}

// StartGated starts a child in a session of its own, with an empty environment and
// exactly the donated descriptors. It is the child that waits at the gate: the
// program has to read a byte there before it does anything, and to leave at the end
// of the pipe. An error leaves no process behind.
func StartGated(s Program) (_ *Child, err error) {
	defer func() {
		err = errors.Join(err, s.Donation.Close())
		if err != nil {
			err = errors.Join(err, s.Gate.Close())
		}
	}()
	var pidfd int
	s.Attr.PidFD = &pidfd
	s.Attr.Setsid = true // a signal to the daemon's terminal is not for sandboxes
	if s.CgroupFD >= 0 {
		s.Attr.UseCgroupFD, s.Attr.CgroupFD = true, s.CgroupFD
	}
	p, err := s.start()
	if err != nil {
		return nil, err
	}
	c := &Child{PID: p.Pid, gate: s.Gate, PIDFD: os.NewFile(uintptr(pidfd), "pidfd"), InGroup: s.Attr.UseCgroupFD}
	if pidfd < 0 {
		// Kernels before 5.2. Nothing here can be safe without.
		return nil, errors.Join(operation.Permanentf("start %s: the kernel gives no pidfd", s.Args[0]), p.Kill())
	}
	if err := p.Release(); err != nil {
		return nil, errors.Join(fmt.Errorf("release %s: %w", s.Args[0], err), c.Abandon())
	}
	c.Identity, err = process.Identify(pidfd, c.PID)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("identify %s: %w", s.Args[0], err), c.Abandon())
	}
	// The memory of the sandbox must not end in a core dump.
	if err := unix.Prlimit(c.PID, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("forbid core dumps of %s: %w", s.Args[0], err), c.Abandon())
	}
	return c, nil
}

// start starts the program in its network namespace.
func (s *Program) start() (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	stderr := s.Stderr
	if stderr == nil {
		stderr = null
	}
	attr := &os.ProcAttr{
		Dir:   "/",
		Env:   crashpoint.Env(), // nothing, but in a test
		Files: append([]*os.File{null, null, stderr}, s.Donation.files...),
		Sys:   s.Attr,
	}
	path := s.Path
	if s.Binary != nil {
		bin, err := s.aside(attr.Files)
		if err != nil {
			return nil, err
		}
		defer bin.Close()
		path = FDPath(bin)
	}
	var p *os.Process
	start := func() (err error) {
		oneStart.Lock()
		defer oneStart.Unlock()
		p, err = os.StartProcess(path, s.Args, attr)
		if (errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)) && s.Attr.UseCgroupFD {
			// Its group was removed, for it was empty. It waits at its gate wherever it
			// is, and joins the group when that has been made again.
			s.Attr.UseCgroupFD = false
			p, err = os.StartProcess(path, s.Args, attr)
		}
		return err
	}
	if s.Netns == nil {
		err = start()
	} else if err = s.Netns.Do(start); err != nil && p != nil {
		// It runs, but the way back failed.
		err = errors.Join(err, p.Kill())
	}
	if err != nil {
		return nil, s.explain(err)
	}
	return p, nil
}

// explain says what an error of the start is, and what of the host to look at.
func (s *Program) explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		// The path in it would be blamed, which is not at fault.
		return fmt.Errorf("start %s: %w (are user namespaces forbidden here? `sandboxctl doctor` tells)", s.Args[0], err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("start %s: %w (is a limit of sysctl user.max_*_namespaces reached? Every sandbox needs two user namespaces)", s.Args[0], err)
	}
	return fmt.Errorf("start %s: %w", s.Args[0], err)
}

// aside returns a copy of the binary under a number that a child with these files
// uses for nothing else: between fork and exec it moves its descriptors to where
// they belong, and would otherwise execute one of them.
func (s *Program) aside(files []*os.File) (*os.File, error) {
	most := len(files)
	for _, f := range files {
		most = max(most, int(f.Fd()))
	}
	// Those in the way are moved above all others first, each by one.
	fd, err := unix.FcntlInt(s.Binary.Fd(), unix.F_DUPFD_CLOEXEC, most+len(files)+8)
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor of %s: %w", s.Path, err)
	}
	return os.NewFile(uintptr(fd), s.Path), nil
}

// Close closes what this process has of the child. One that still waits at its gate
// leaves.
func (c *Child) Close() {
	if c.gate != nil {
		c.gate.Close()
	}
	c.PIDFD.Close()
}

// Open lets the child go with a byte that its program takes for that, once. It is on
// record by now.
func (c *Child) Open(b byte) error {
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

// SetOOMScore says how likely the host's kernel is to kill the child when it runs
// out of memory, from -1000 to 1000. The child must not have been waited for: then
// its number is its own.
func (c *Child) SetOOMScore(adj int) error { return setOOMScore(c.PID, adj) }

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

// Abandon kills a child that never got as far as the record, and reaps it.
func (c *Child) Abandon() error {
	var errs []error
	if c.gate != nil {
		errs = append(errs, c.gate.Close())
		c.gate = nil
	}
	fd := int(c.PIDFD.Fd())
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		errs = append(errs, fmt.Errorf("kill: %w", err))
	}
	var info unix.Siginfo
	if err := RetryEINTR(func() error { return unix.Waitid(unix.P_PIDFD, fd, &info, unix.WEXITED, nil) }); err != nil && !errors.Is(err, unix.ECHILD) {
		errs = append(errs, fmt.Errorf("reap: %w", err))
	}
	return errors.Join(append(errs, c.PIDFD.Close())...)
}

// RetryEINTR calls f again as long as a signal interrupts it.
func RetryEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
