// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/checkpoint"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/logs"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/resolve"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// launch is one attempt to bring a sandbox up.
type launch struct {
	rec *actual.Record
	st  *setup.Setup
	// phase is what the record says before the gates are opened.
	phase actual.Phase
	// streams are the application's, if somebody else reads and writes them;
	// nil sends its output to the log files.
	streams *streams
	// oomScore is that of both processes and of all that they start; nil leaves
	// the launcher's.
	oomScore *int
	// logs is the log directory of this attempt.
	logs *os.File
	// state is the path of the state directory.
	state string
}

// start brings the sandbox of a record up: gated processes, record, gates,
// control server, application. On error the caller aborts.
func (l *Launcher) start(ctx context.Context, rec *actual.Record, sb *desired.Sandbox, policy *hostpolicy.Policy, restore string) error {
	st, err := resolve.FromManifest(sb, policy)
	if err != nil {
		return err
	}
	timeout := l.opts.BootTimeout + min(st.StartTimeout(), policy.HookTime())
	var img *checkpoint.Image
	if restore != "" {
		if img, err = l.openChecked(ctx, st, restore); err != nil {
			return err
		}
		defer img.Close()
		timeout += img.Timeout()
		// What is in it has an init process or not, whatever the manifest says now.
		st.Init, st.Restores = img.Info.Init, true
	}
	rec.Init = st.Init
	// Not before the checkpoint is compared: it was described without.
	described := st.CopySpec()
	if err := resolve.MountPoints(st); err != nil {
		return err
	}
	if err := resolve.HideInBundle(st); err != nil {
		return err
	}
	if !reflect.DeepEqual(described, st.Spec) {
		st.Described = described
	}
	// Hooks, and the size of a checkpoint, are for the author of the manifest to
	// choose; how long they may keep the sandbox from being replaced is not.
	outer, end := context.WithTimeoutCause(ctx, policy.StartTime(), fmt.Errorf("not started after %s, which is maxStartTime of the host policy", policy.StartTime()))
	defer end()
	ctx, cancel := context.WithTimeoutCause(outer, timeout, fmt.Errorf("not started after %s", timeout))
	defer cancel()
	// Once the gates open, a reader of the record must assume that the application
	// may be running.
	b, err := l.boot(ctx, &launch{rec: rec, st: st, phase: actual.PhaseStarting, oomScore: new(proc.SandboxOOMScore)})
	if err != nil {
		return err
	}
	defer b.close()
	if st.Hooks != nil {
		// They have timeouts of their own.
		if err := l.beforeStart(outer, rec, st.Hooks, policy.HookTime()); err != nil {
			return err
		}
		fresh, done := context.WithTimeoutCause(outer, timeout, fmt.Errorf("not started after %s", timeout))
		defer done()
		ctx = fresh
	}
	if err := l.startApp(ctx, rec, st, b.control, img); err != nil {
		if img == nil {
			err = sentry.ExplainCommand(err, func(p string) []byte { return resolve.Peek(st, p, sentry.MaxInterpreterLine) })
		}
		return l.explain(ctx, err, rec)
	}
	rec.Started(time.Now())
	if st.Hooks != nil {
		if err := l.store.Put(rec); err != nil {
			return fmt.Errorf("record start: %w", err)
		}
		afterStart(outer, rec, st.Hooks, policy.HookTime())
	}
	return l.recordStart(rec)
}

// recordStart writes down that the application was started. The copy comes first:
// a sandbox that is on record as running has one, wherever its launcher died.
func (l *Launcher) recordStart(rec *actual.Record) error {
	if err := l.store.PutCopy(rec); err != nil {
		// The sandbox runs, and can do without.
		l.opts.Log.Warn("record not copied", "sandbox", rec.Name, "err", err)
	}
	if err := l.store.Put(rec); err != nil {
		return fmt.Errorf("record start: %w", err)
	}
	return nil
}

// booted is a sandbox whose application has not been started.
type booted struct {
	pair    *pair
	control *sentry.Control
}

func (b *booted) close() {
	b.pair.close()
	_ = b.control.Close() // nothing is in flight
}

// boot brings a sandbox up as far as its control server: gated processes,
// record, gates.
func (l *Launcher) boot(ctx context.Context, la *launch) (*booted, error) {
	rec := la.rec
	dir, err := l.store.Dir(rec.Name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	la.state = l.store.Marker()
	uid, gid := la.st.Maps.Owner()
	if la.logs, err = l.logs.Prepare(dir, rec.Name, rec.Attempt, uid, gid); err != nil {
		return nil, err
	}
	defer la.logs.Close()
	p, err := l.spawnRecorded(ctx, la, int(dir.Fd()))
	if err != nil {
		return nil, err
	}
	b := &booted{pair: p}
	if err := p.open(); err != nil {
		p.close()
		return nil, err
	}
	if b.control, err = p.connect(ctx, int(dir.Fd()), rec.Name); err != nil {
		p.close()
		return nil, l.explain(ctx, err, rec)
	}
	return b, nil
}

// spawnRecorded starts both processes in their cgroup, gated, and writes them
// into the record.
func (l *Launcher) spawnRecorded(ctx context.Context, la *launch, dir int) (*pair, error) {
	rec := la.rec
	group, err := l.createGroup(rec, la.st)
	if err != nil {
		return nil, fmt.Errorf("create cgroup: %w", err)
	}
	defer group.Close()
	if err := checkThawed(group); err != nil {
		return nil, err
	}
	cloneFD, cloned := group.CloneFD()
	if !cloned {
		cloneFD = -1
	}
	// One that is frozen from here on keeps a new process from its program, and us
	// waiting for that, until it is killed: in its group, since its number is not
	// known yet.
	killed := make(chan struct{})
	thawed := context.AfterFunc(ctx, func() {
		defer close(killed)
		_ = group.Kill()
	})
	p, err := l.spawnPair(ctx, la, dir, cloneFD)
	if !thawed() {
		<-killed // it uses the descriptors of the group
		if err == nil {
			err = errors.Join(fmt.Errorf("start processes: %w", context.Cause(ctx)), p.abandon())
		}
	}
	if err != nil {
		return nil, err
	}
	for _, c := range []*proc.Child{p.sentry, p.gofer} {
		if err := group.Add(c.PID); err != nil {
			return nil, errors.Join(fmt.Errorf("join cgroup: %w", err), p.abandon())
		}
	}
	// Before the gates are open: processes that they start inherit it.
	if la.oomScore != nil {
		if err := errors.Join(p.sentry.SetOOMScore(*la.oomScore), p.gofer.SetOOMScore(*la.oomScore)); err != nil {
			return nil, errors.Join(err, p.abandon())
		}
	}
	// Before the record says that the sandbox may run.
	if err := built.Record(l.store, rec, la.st); err != nil {
		return nil, errors.Join(err, p.abandon())
	}
	rec.SetupFile = true
	rec.Spawned(la.phase, p.sentry.Identity, p.gofer.Identity)
	l.strays.Note(rec.Name, p.sentry.Identity, p.gofer.Identity)
	if err := l.store.Put(rec); err != nil {
		rec.Sentry, rec.Gofer, rec.SetupFile = nil, nil, false
		return nil, errors.Join(fmt.Errorf("record processes: %w", err), p.abandon())
	}
	return p, nil
}

// startApp starts the application, or with a checkpoint lets the one in it go
// on.
func (l *Launcher) startApp(ctx context.Context, rec *actual.Record, st *setup.Setup, c *sentry.Control, img *checkpoint.Image) error {
	if err := l.setNetwork(ctx, rec, st, c, img != nil); err != nil {
		return err
	}
	report, err := l.openStartReport(rec.Name, st)
	if err != nil {
		return err
	}
	defer report.Close()
	if img != nil {
		operation.Waits(ctx)
		err = c.Restore(ctx, img.State)
	} else {
		crashpoint.Before(crashpoint.StartRoot)
		err = c.StartRoot(ctx)
		crashpoint.After(crashpoint.StartRoot)
		if report != nil && (err == nil || errors.Is(err, sentry.ErrClosed)) {
			if st.StartHooks != nil {
				operation.Waits(ctx)
			}
			// Also of one that was over before the sentry could answer.
			rerr := waitStart(ctx, st, report)
			if err == nil || rerr != nil && !errors.Is(rerr, errNotReported) {
				return rerr
			}
		}
	}
	var remote *sentry.RemoteError
	if err == nil || errors.As(err, &remote) {
		return err
	}
	// A short job may be over, and its sentry gone, before the answer was
	// sent: the exit record tells.
	if sentryDied(ctx, rec, time.Second) {
		// An exit record that can't be read now may be readable later: a job that may
		// have ended well is not run again for that.
		if exit, xerr := l.store.ReadExit(rec); xerr != nil || exit != nil {
			return nil
		}
	}
	return err
}

// pair is a sentry and its gofer while they are being started.
type pair struct {
	sentry, gofer *proc.Child
	ready         *os.File // start-sync: one byte says the control server is up
}

func (p *pair) close() {
	p.sentry.Close()
	p.gofer.Close()
	p.ready.Close()
}

func (p *pair) open() error {
	crashpoint.Before(crashpoint.GoferGate)
	err := p.gofer.Open(gofer.GateOpen)
	crashpoint.After(crashpoint.GoferGate)
	crashpoint.Before(crashpoint.SentryGate)
	err = errors.Join(err, p.sentry.Open(wire.GateOpen))
	crashpoint.After(crashpoint.SentryGate)
	return err
}

// abandon kills both before they are on record.
func (p *pair) abandon() error {
	return errors.Join(p.sentry.Abandon(), p.gofer.Abandon(), p.ready.Close())
}

// connect waits for the sentry's control server and connects to it, and to
// nobody else.
func (p *pair) connect(ctx context.Context, dir int, name string) (*sentry.Control, error) {
	if err := p.waitReady(ctx); err != nil {
		return nil, err
	}
	return sentry.Dial(ctx, dir, name, p.sentry.PID)
}

// waitReady waits for the sentry's control server.
func (p *pair) waitReady(ctx context.Context) error {
	fds := []unix.PollFd{
		{Fd: int32(p.ready.Fd()), Events: unix.POLLIN},
		{Fd: int32(p.sentry.PIDFD.Fd()), Events: unix.POLLIN},
		{Fd: int32(p.gofer.PIDFD.Fd()), Events: unix.POLLIN},
	}
	if err := proc.Poll(ctx, fds); err != nil {
		return fmt.Errorf("wait for control server: %w", err)
	}
	if fds[0].Revents&unix.POLLIN != 0 {
		var b [1]byte
		if n, err := p.ready.Read(b[:]); n == 1 {
			return nil
		} else if fds[1].Revents == 0 && fds[2].Revents == 0 {
			return fmt.Errorf("wait for control server: %w", err)
		}
	}
	// A gofer leaves as soon as its sentry has: if both are gone, the sentry was
	// first. A sentry that is about to be gone has closed its end of ready.
	if fds[0].Revents == 0 && fds[1].Revents == 0 {
		return errors.New("wait for control server: the gofer exited")
	}
	return errors.New("wait for control server: the sentry exited")
}

// sentryDied says whether the sentry of the record dies in the time given.
func sentryDied(ctx context.Context, rec *actual.Record, within time.Duration) bool {
	p, err := actual.Open(*rec.Sentry)
	if err != nil {
		return errors.Is(err, actual.ErrGone)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return p.Wait(ctx) == nil
}

// spawnPair starts the sentry and the gofer, both gated.
func (l *Launcher) spawnPair(ctx context.Context, la *launch, dir, cgroupFD int) (_ *pair, err error) {
	rec, st := la.rec, la.st
	var toSentry, toGofer proc.Donation
	defer func() { err = errors.Join(err, toSentry.Close(), toGofer.Close()) }()

	sentryBin, goferBin, err := l.openPrograms(ctx, rec)
	if err != nil {
		return nil, err
	}
	defer sentryBin.Close()
	defer goferBin.Close()

	files, err := hostfs.OpenSources(st.Sources(), &toGofer, &toSentry)
	if err != nil {
		return nil, err
	}
	rec.Files = files.Files()
	never, overlays, err := files.Check(st, &hostfs.Host{
		State: l.store.RootDir(), StatePath: l.store.Path(), Programs: []string{l.sentry.Path, l.gofer.Path},
	})
	if err != nil {
		return nil, err
	}
	logs, stdio, sentryErr, err := l.openOutput(la, &toGofer)
	if err != nil {
		return nil, err
	}
	defer sentryErr.Close()

	stdioFDs := stdio.give(&toSentry)
	ns, err := openNetns(st)
	if err != nil {
		return nil, err
	}
	if ns != nil {
		defer ns.Close()
	}
	attr := sentryAttr(st)
	if st.Spec.Process.Terminal {
		// The sentry's controlling terminal becomes the application's.
		attr.Setctty, attr.Ctty = true, stdioFDs[0]
	}
	sentryGate, gateFD, err := proc.NewGate(&toSentry)
	if err != nil {
		return nil, err
	}
	args, ready, err := l.sentryArgs(la, dir, gateFD, files.Sockets, stdioFDs, &toSentry)
	if err != nil {
		return nil, errors.Join(err, sentryGate.Close())
	}
	p := &pair{ready: ready}
	crashpoint.Before(crashpoint.SentrySpawn)
	p.sentry, err = proc.StartGated(proc.Program{
		Path: l.sentry.Path, Binary: sentryBin, Args: args, Attr: attr, Donation: &toSentry, Gate: sentryGate, Stderr: sentryErr, CgroupFD: cgroupFD, Netns: ns,
	})
	crashpoint.After(crashpoint.SentrySpawn)
	if err != nil {
		return nil, errors.Join(err, ready.Close())
	}
	p.gofer, err = spawnGofer(goferBin, la, p.sentry, &gofer.Config{
		Mounts: files.Mounts, DirectFS: st.DirectFS, Logs: *logs, NeverShared: never, Overlays: overlays,
	}, dir, &toGofer, cgroupFD)
	if err != nil {
		return nil, errors.Join(err, p.sentry.Abandon(), ready.Close())
	}
	return p, nil
}

// openPrograms opens the programs of a sandbox, and writes down which they are.
func (l *Launcher) openPrograms(ctx context.Context, rec *actual.Record) (sentry, gofer *os.File, err error) {
	sentry, version, err := l.sentry.Open(ctx)
	if err != nil {
		return nil, nil, err
	}
	gofer, goferVersion, err := l.gofer.Open(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, sentry.Close())
	}
	if err := companion.SameGVisor(version, goferVersion); err != nil {
		return nil, nil, errors.Join(err, sentry.Close(), gofer.Close())
	}
	rec.SentryBinary, rec.GoferBinary, rec.GVisor = l.sentry.Path, l.gofer.Path, version
	return sentry, gofer, nil
}

// spawnGofer starts the gofer.
func spawnGofer(bin *os.File, la *launch, sentry *proc.Child, cfg *gofer.Config, dir int, fds *proc.Donation, cgroupFD int) (*proc.Child, error) {
	rec := la.rec
	dup, err := unix.FcntlInt(sentry.PIDFD.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate pidfd of sentry: %w", err)
	}
	cfg.SentryFD = fds.GiveFD(dup, "pidfd of sentry")
	left, err := actual.EncodeExit(actual.ExitRecord{UID: rec.UID, Attempt: rec.Attempt})
	if err != nil {
		return nil, err
	}
	exit, err := openExit(dir, actual.GoferExitFile)
	if err != nil {
		return nil, err
	}
	cfg.LeftFD, cfg.Left = fds.Give(exit), string(left)
	gate, gateFD, err := proc.NewGate(fds)
	if err != nil {
		return nil, err
	}
	cfg.GateFD = gateFD
	var b bytes.Buffer
	if err := cfg.Encode(&b); err != nil {
		return nil, errors.Join(err, gate.Close())
	}
	conf, err := proc.MemFile("gofer configuration", b.Bytes())
	if err != nil {
		return nil, errors.Join(err, gate.Close())
	}
	argv := gofer.Argv(fds.Give(conf), rec.Name, la.state)
	crashpoint.Before(crashpoint.GoferLog)
	stderr, err := logs.Create(la.logs, logs.GoferFile)
	crashpoint.After(crashpoint.GoferLog)
	if err != nil {
		return nil, errors.Join(err, gate.Close())
	}
	defer stderr.Close()
	attr, err := goferAttr(la.st.Maps)
	if err != nil {
		return nil, errors.Join(err, gate.Close())
	}
	crashpoint.Before(crashpoint.GoferSpawn)
	c, err := proc.StartGated(proc.Program{
		Path: bin.Name(), Binary: bin, Args: argv, Attr: attr, Donation: fds, Gate: gate, Stderr: stderr, CgroupFD: cgroupFD,
	})
	crashpoint.After(crashpoint.GoferSpawn)
	return c, err
}

// sentryArgs builds the command line of the boot process and gives it the
// descriptors it names. ready is the read end of start-sync.
func (l *Launcher) sentryArgs(la *launch, dir, gateFD int, sockets, stdioFDs []int, d *proc.Donation) (args []string, ready *os.File, err error) {
	rec, st := la.rec, la.st
	guestSpec, firstArgs, err := l.guestSpec(st, rec.Name, dir, len(stdioFDs), d)
	if err != nil {
		return nil, nil, err
	}
	// Not in the set-up, which is compared with that of a checkpoint: one that was
	// taken before there were defaults stays good.
	guestSpec.Process = setup.WithDefaultRlimits(guestSpec.Process, st.GuestTasks())
	spec, err := json.Marshal(guestSpec)
	if err != nil {
		return nil, nil, fmt.Errorf("encode spec: %w", err)
	}
	specFile, err := proc.MemFile("spec", spec)
	if err != nil {
		return nil, nil, err
	}
	specFD := d.Give(specFile)
	control, err := sentry.BindControl(dir)
	if err != nil {
		return nil, nil, err
	}
	controlFD := d.Give(control)
	exit, err := openExit(dir, actual.ExitFile)
	if err != nil {
		return nil, nil, err
	}
	exitFD := d.Give(exit)
	ready, w, err := proc.Pipe()
	if err != nil {
		return nil, nil, err
	}
	readyFD := d.Give(w)
	// It writes there when its control server is up, and would end if nobody
	// could read that any more: it holds a read end itself, so that it outlives
	// a launcher which dies meanwhile.
	again, err := unix.FcntlInt(ready.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("duplicate pipe: %w", err), ready.Close())
	}
	d.GiveFD(again, "pipe")

	overlay := "none"
	if st.Overlay == desired.OverlayMemory {
		overlay = "root:memory"
	}
	args = []string{
		companion.SentryName,
		flagInt(wire.FlagGateFD, gateFD), flagInt(wire.FlagExitFD, exitFD),
		"--" + wire.FlagUID + "=" + rec.UID, "--" + wire.FlagAttempt + "=" + strconv.FormatInt(rec.Attempt, 10),
		"--" + wire.FlagState + "=" + l.store.Marker(),
		// The parent that reaps it for an OCI client takes its exit code for the
		// application's.
		"--" + wire.FlagAppStatus + "=" + strconv.FormatBool(rec.Container != nil),
		"--" + wire.FlagNobody + "=" + strconv.FormatBool(!st.HostUserns()), "--" + wire.FlagLogLevel + "=" + l.opts.SentryLogLevel,
		// gVisor's configuration: everything that is not its default.
		"--root=/", "--platform=systrap", "--network=" + st.Network(), "--directfs=" + strconv.FormatBool(st.DirectFS),
		"--overlay2=" + overlay, "--ignore-cgroups=true", "--oci-seccomp=true", "--net-raw=" + strconv.FormatBool(st.RawSockets),
		wire.VerbBoot, "--gofer-mount-confs=" + st.MountConfs(),
		flagInt("spec-fd", specFD), flagInt("controller-fd", controlFD), flagInt("start-sync-fd", readyFD),
	}
	if len(st.Errnos) > 0 {
		// Before the verb.
		args = slices.Insert(args, 1, "--"+wire.FlagErrnos+"="+setup.JoinUints(st.Errnos))
	}
	for _, fd := range sockets {
		args = append(args, flagInt("io-fds", fd))
	}
	for i, fd := range stdioFDs {
		if i < 3 {
			args = append(args, flagInt("stdio-fds", fd))
		} else {
			args = append(args, fmt.Sprintf("--pass-fd=%d:%d", fd, i))
		}
	}
	args = append(args, firstArgs...)
	total, err := totalMemory()
	if err != nil {
		return nil, nil, errors.Join(err, ready.Close())
	}
	mem := total
	if m := setup.Limit(st.Limits.Memory, st.Defaults.Memory); m > 0 && uint64(m) < mem {
		mem = uint64(m)
	}
	args = append(args, "--total-host-memory="+strconv.FormatUint(total, 10), "--total-memory="+strconv.FormatUint(mem, 10),
		flagInt("cpu-num", cpus(setup.Limit(st.Limits.CPU, st.Defaults.CPU))), rec.Name)
	return args, ready, nil
}

func flagInt(name string, v int) string { return "--" + name + "=" + strconv.Itoa(v) }

// cpus is how many processors the guest sees: those of its quota, rounded up.
func cpus(milli int64) int {
	n := runtime.NumCPU()
	if milli > 0 {
		n = min(n, int((milli+999)/1000))
	}
	return n
}

func totalMemory() (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("get memory size: %w", err)
	}
	return info.Totalram * uint64(info.Unit), nil
}

// openExit creates an empty exit record for the process that will fill it. It is
// a new file: one of an attempt before was held by a process that may have been
// taken over.
func openExit(dir int, name string) (*os.File, error) {
	if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove old exit record: %w", err)
	}
	crashpoint.Before(crashpoint.ExitFile)
	// Not O_APPEND: with it, pwrite would append wherever it is told to write,
	// and the sentry's filter counts on the offset.
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	crashpoint.After(crashpoint.ExitFile)
	if err != nil {
		return nil, fmt.Errorf("create exit record: %w", err)
	}
	// Room for what will be written: a job that has ended on a full disk must not
	// be run again. The size stays 0, which says that it has not ended.
	// Filesystems in memory give up at any signal, and Go's scheduler sends some.
	err = proc.RetryEINTR(func() error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, actual.MaxExit) })
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		unix.Close(fd)
		return nil, fmt.Errorf("create exit record: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
