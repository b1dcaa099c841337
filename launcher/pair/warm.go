// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/pause"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// WarmDir is where warm sentries have their files, in the state directory, each in a directory
// of its own. A start moves them into that of its sandbox.
const WarmDir = "warm"

// takeContainer bounds how long a warm sentry may take to make a container of nothing. A start
// does not wait any longer for one that hangs.
const takeContainer = 500 * time.Millisecond

// Warm is what belongs to a warm sentry beside its process.
type Warm struct {
	control *sentry.Control
	// conf is the configuration of its kernel.
	conf json.RawMessage
	// stderr is what it writes to. The gofer of its sandbox reads that.
	stderr *os.File
	// rlimits are those that commands of the sandbox get, and memory what the sandbox sees.
	rlimits []specs.POSIXRlimit
	memory  uint64
	// dir is the directory of its files, called name in parent.
	parent, dir *os.File
	name        string
}

// WarmLaunch is what a warm sentry is booted from.
type WarmLaunch struct {
	// Root is the state directory, and State its path.
	Root  *os.File
	State string
	// Defaults are the limits of sandboxes that ask for none.
	Defaults cgroup.Limits
}

// WarmUp has the sentry, which waits and is prepared, boot a kernel.
func (w *Waiting) WarmUp(ctx context.Context, la *WarmLaunch) (err error) {
	if w.Warm, err = newWarm(la, w.Sentry.PID); err != nil {
		return err
	}
	ready, err := w.Warm.boot(w.Sentry, la)
	if err != nil {
		return err
	}
	defer ready.Close()
	// From here on it does the work of a start, for which nobody waits.
	if err := w.Sentry.WaitingPriority(false); err != nil {
		return err
	}
	if err := waitReady(ctx, ready, w.Sentry, w.Gofer); err != nil {
		return w.Warm.explain(err)
	}
	if err := w.Warm.run(ctx, w.Sentry); err != nil {
		return w.Warm.explain(err)
	}
	return w.Sentry.WaitingPriority(true)
}

// newWarm makes the directory. Its name is that of nothing else that lives: what is left of a
// daemon before was removed when this one began.
func newWarm(la *WarmLaunch, pid int) (_ *Warm, err error) {
	w := &Warm{name: strconv.Itoa(pid)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	err = crashpoint.Do(crashpoint.WarmDirectory, func() error {
		if err := unix.Mkdirat(int(la.Root.Fd()), WarmDir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		if w.parent, err = openDir(la.Root, WarmDir); err != nil {
			return err
		}
		return unix.Mkdirat(int(w.parent.Fd()), w.name, 0o700)
	})
	if err == nil {
		w.dir, err = openDir(w.parent, w.name)
	}
	if err != nil {
		return nil, fmt.Errorf("make a directory for a warm sentry: %w", err)
	}
	return w, nil
}

func openDir(parent *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// boot tells the sentry to boot. It returns the read end of start-sync.
func (w *Warm) boot(c *proc.Child, la *WarmLaunch) (ready *os.File, err error) {
	var d proc.Donation
	defer func() { err = errors.Join(err, d.Close()) }()
	st := &setup.Setup{Defaults: la.Defaults}
	memory, err := totalMemory()
	if err != nil {
		return nil, err
	}
	w.rlimits = setup.WithDefaultRlimits(&specs.Process{}, st.GuestTasks()).Rlimits
	w.memory = seenMemory(st, memory)
	// It logs warnings only until it is claimed: nobody reads the pipe before.
	args := []string{
		"--" + wire.FlagWarm, "--" + wire.FlagNobody, "--" + wire.FlagState + "=" + la.State,
		"--root=/", "--platform=systrap", "--network=none", "--directfs=false", "--overlay2=none", "--ignore-cgroups=true", "--oci-seccomp=true", "--net-raw=false",
	}
	more := []string{wire.VerbBoot, "--gofer-mount-confs=" + pause.MountConf, "--total-host-memory=" + strconv.FormatUint(memory, 10), "--total-memory=" + strconv.FormatUint(w.memory, 10), flagInt("cpu-num", cpus(0))}
	spec, err := json.Marshal(pause.Spec(w.rlimits, false))
	if err != nil {
		return nil, fmt.Errorf("encode spec: %w", err)
	}
	for _, f := range []struct {
		flag string
		boot bool
		open func() (*os.File, error)
	}{
		{wire.FlagExitFD, false, func() (*os.File, error) { return openExit(int(w.dir.Fd()), actual.ExitFile) }},
		{"spec-fd", true, func() (*os.File, error) { return proc.MemFile("spec", spec) }},
		{"controller-fd", true, func() (*os.File, error) { return sentry.BindControl(int(w.dir.Fd())) }},
		{"io-fds", true, pause.Image},
		{"stdio-fds", true, openNull},
		{"stdio-fds", true, openNull},
		{"stdio-fds", true, openNull},
	} {
		file, err := f.open()
		if err != nil {
			return nil, err
		}
		if arg := flagInt(f.flag, d.Give(file)); f.boot {
			more = append(more, arg)
		} else {
			args = append(args, arg)
		}
	}
	ready, readyW, err := proc.Pipe()
	if err != nil {
		return nil, err
	}
	gate, gateFD, err := proc.NewWarmGate(&d)
	if err != nil {
		return nil, errors.Join(err, ready.Close(), readyW.Close())
	}
	more = append(more, flagInt("start-sync-fd", d.Give(readyW)))
	args = append(args, flagInt(wire.FlagGateFD, gateFD))
	r, stderr, err := proc.Pipe()
	if err != nil {
		return nil, errors.Join(err, ready.Close(), gate.Close())
	}
	defer stderr.Close()
	w.stderr = r
	// As long as it waits it is called so.
	argv := slices.Concat(wire.WaitingArgv(waitingSentry, la.State)[:3], args, more, []string{wire.PauseContainer})
	if err := c.Become(&proc.Program{Args: argv, Donation: &d, Gate: gate, Stderr: stderr}); err != nil {
		return nil, errors.Join(err, ready.Close(), gate.Close())
	}
	return ready, nil
}

func openNull() (*os.File, error) {
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	return f, nil
}

// hotRun is the container that runs once before there is a sandbox: what the application will
// need has been used then.
const hotRun = "sandboxctl:hot"

// run starts the first container, and one that ends at once.
func (w *Warm) run(ctx context.Context, c *proc.Child) (err error) {
	if w.control, err = sentry.Dial(ctx, int(w.dir.Fd()), wire.PauseContainer, c.PID); err != nil {
		return err
	}
	if err := w.control.SetNetwork(ctx, wire.Loopback()); err != nil {
		return err
	}
	if err := w.control.App().StartRoot(ctx); err != nil {
		return err
	}
	if w.conf, err = c.Conf(ctx); err != nil {
		return err
	}
	hot := w.control.Beside(hotRun)
	if err := hot.Create(ctx); err != nil {
		return err
	}
	spec, err := json.Marshal(hotSpec(w.rlimits))
	if err != nil {
		return fmt.Errorf("encode spec: %w", err)
	}
	image, err := pause.Image()
	if err != nil {
		return err
	}
	defer image.Close()
	null, err := openNull()
	if err != nil {
		return err
	}
	defer null.Close()
	mounts, err := wire.MountConfs(pause.HotMountConf)
	if err != nil {
		return err
	}
	if err := hot.StartBeside(ctx, &sentry.Subcontainer{Spec: spec, Conf: w.conf, Mounts: mounts, Stdio: [3]*os.File{null, null, null}, Trees: []*os.File{image}}); err != nil {
		return err
	}
	if _, err := hot.Wait(ctx); err != nil {
		return err
	}
	return hot.Destroy(ctx)
}

// hotSpec has the mounts that every sandbox has, of those that come from no gofer.
func hotSpec(rlimits []specs.POSIXRlimit) *specs.Spec {
	s := pause.Spec(rlimits, true)
	s.Mounts = []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}}
	s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace}}
	return s
}

// explain adds what the sentry has written.
func (w *Warm) explain(err error) error { return fmt.Errorf("%w: %s", err, pipedWords(w.stderr)) }

// pipedWords is the beginning of what is in a pipe now.
func pipedWords(f *os.File) string {
	const nothing = "nothing was printed"
	if f == nil {
		return nothing
	}
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); n <= 0 || err != nil || fds[0].Revents&unix.POLLIN == 0 {
		return nothing
	}
	b := make([]byte, 1000)
	n, err := f.Read(b)
	if n <= 0 || err != nil {
		return nothing
	}
	return untrusted.Line(string(b[:n]), len(b))
}

// close closes what this process has, and removes the files that no start has moved.
func (w *Warm) close() error {
	if w == nil {
		return nil
	}
	var errs []error
	if w.control != nil {
		_ = w.control.Close() // nothing is in flight
	}
	if w.stderr != nil {
		_ = w.stderr.Close() // nothing was written to it
	}
	if w.dir != nil {
		for _, name := range []string{sentry.ControlSocket, actual.ExitFile} {
			if err := unix.Unlinkat(int(w.dir.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, err)
			}
		}
		errs = append(errs, unix.Unlinkat(int(w.parent.Fd()), w.name, unix.AT_REMOVEDIR), w.dir.Close())
	}
	if w.parent != nil {
		errs = append(errs, w.parent.Close())
	}
	return errors.Join(errs...)
}

// claim makes a warm sentry that of a sandbox, which gives it nothing yet but its name. A
// sentry that does not answer is ended, and not used: the start goes on without it.
func (w *Waiting) claim(ctx context.Context, la *Launch, guest *specs.Spec) (c *proc.Child, warm *Warm) {
	if w == nil || w.Warm == nil || w.Sentry == nil {
		return nil, nil
	}
	err := w.Warm.fits(la, guest.Process)
	if err == nil {
		if err = w.Warm.serve(ctx, la, w.Sentry, guest); err == nil {
			c, warm = w.Sentry, w.Warm
			w.Sentry, w.Warm = nil, nil
			return c, warm
		}
	}
	w.Refused = errors.Join(w.Refused, w.Warm.explain(err), w.Sentry.Abandon(), w.Warm.close())
	w.Sentry, w.Warm = nil, nil
	return nil, nil
}

// fits is an error if the kernel is not that of a sentry which is booted for the sandbox.
func (w *Warm) fits(la *Launch, process *specs.Process) error {
	memory, err := totalMemory()
	if err != nil {
		return err
	}
	if !slices.Equal(process.Rlimits, w.rlimits) {
		return errors.New("a warm sentry has other rlimits")
	}
	if seenMemory(la.Setup, memory) != w.memory {
		return errors.New("a warm sentry has another size of memory")
	}
	return nil
}

// serve tells the sentry whose it is, has it make the container of the application, and moves
// its files. Until the gate is open it ends with this process.
func (w *Warm) serve(ctx context.Context, la *Launch, c *proc.Child, guest *specs.Spec) error {
	claim := wire.Claim{
		Args:        append(append(identityArgs(la), wire.VerbBoot), la.Name),
		Hostname:    guest.Hostname,
		Domainname:  guest.Domainname,
		Environment: guest.Process.Env,
	}
	msg, err := claim.Encode()
	if err != nil {
		return err
	}
	if err := c.Serves(msg); err != nil {
		return err
	}
	w.control.ServesFor(la.Name)
	ctx, cancel := context.WithTimeoutCause(ctx, takeContainer, fmt.Errorf("no answer within %s", takeContainer))
	defer cancel()
	// Before the record: a daemon that finds this one's start cut short sees a container that
	// was not started, and not one that has ended.
	if err := crashpoint.Do(crashpoint.WarmCreate, func() error { return w.control.App().Create(ctx) }); err != nil {
		return err
	}
	for _, name := range []string{sentry.ControlSocket, actual.ExitFile} {
		err := crashpoint.Do(crashpoint.WarmMove, func() error {
			return unix.Renameat(int(w.dir.Fd()), name, int(la.Dir.Fd()), name)
		})
		if err != nil {
			return fmt.Errorf("move %s of a warm sentry: %w", name, err)
		}
	}
	return nil
}

// application is what the application of a warm sentry is started from. The files are the
// donation's, which is kept until then.
type application struct {
	warm  *Warm
	files proc.Donation
	start sentry.Subcontainer
}

func (a *application) close() error {
	if a == nil {
		return nil
	}
	return errors.Join(a.files.Close(), a.warm.close())
}

// giveWarm is startSentry with a sentry that has a kernel: it keeps what the application is
// given until Start.
func (p *Pair) giveWarm(la *Launch, w *Warm, fds *sentryFDs, d *proc.Donation) error {
	guest, _, err := guestSpec(la, len(fds.stdio), d)
	if err != nil {
		return err
	}
	app := &application{warm: w}
	s := &app.start
	s.Conf = w.conf
	if s.Mounts, err = wire.MountConfs(la.Setup.MountConfs()); err != nil {
		return err
	}
	// The numbers of the others would be in the way, and it would be seen and signalled.
	own := *guest
	linux := *cmp.Or(guest.Linux, &specs.Linux{})
	linux.Namespaces = append(slices.Clip(linux.Namespaces), specs.LinuxNamespace{Type: specs.PIDNamespace})
	own.Linux = &linux
	if s.Spec, err = json.Marshal(&own); err != nil {
		return fmt.Errorf("encode spec: %w", err)
	}
	if fds.upper, err = giveUpper(la, fds.points, d); err != nil {
		return err
	}
	files := d.Descriptors()
	at := func(fd int) *os.File { return files[fd-proc.FirstDonated] }
	for _, fd := range fds.sockets {
		s.Trees = append(s.Trees, at(fd))
	}
	for i := range s.Stdio {
		s.Stdio[i] = at(fds.stdio[i])
	}
	if fds.upper >= 0 {
		s.Upper = at(fds.upper)
	}
	app.files, *d = *d, proc.Donation{}
	p.app = app
	return nil
}

// Start starts the application, once the gates are open. It is done once.
func (p *Pair) Start(ctx context.Context, c *sentry.Control) error {
	if p == nil || p.app == nil {
		return crashpoint.Do(crashpoint.StartRoot, func() error { return c.App().StartRoot(ctx) })
	}
	err := crashpoint.Do(crashpoint.WarmStart, func() error { return c.App().StartBeside(ctx, &p.app.start) })
	// The sentry has its own. A reader of the output, or a server of files, would see no end as long as
	// these are open.
	return errors.Join(err, p.app.files.Close())
}

// Warm says whether the sentry had a kernel before it had a sandbox.
func (p *Pair) Warm() bool { return p != nil && p.app != nil }

// Way is by which way the sentry came.
func (p *Pair) Way() string {
	switch {
	case p.app != nil:
		return actual.WayWarm
	case p.Waited:
		return actual.WayWaiting
	}
	return actual.WayCold
}

// SweepWarm removes what warm sentries of a daemon before have left. None of them lives.
func SweepWarm(root *os.File) error {
	if more, err := untrusted.NewRemover(int(root.Fd()), maxWarmFiles).Remove(WarmDir); err != nil || more {
		return fmt.Errorf("remove what warm sentries have left: %w", cmp.Or(err, errors.New("there is too much")))
	}
	return nil
}

// maxWarmFiles bounds what SweepWarm removes at a time: three of each warm sentry.
const maxWarmFiles = 4096

// takeStderr gives away the pipe that the sentry writes to.
func (w *Warm) takeStderr() (f *os.File) {
	f, w.stderr = w.stderr, nil
	return f
}

// takeControl gives away the connection.
func (w *Warm) takeControl() (c *sentry.Control) {
	c, w.control = w.control, nil
	return c
}
