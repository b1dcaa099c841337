// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/logs"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// Launch is what a sentry and its gofer are started from.
type Launch struct {
	Name, UID string
	Attempt   int64
	// Client says that a client of the OCI runtime has asked for it.
	Client bool
	Setup  *setup.Setup
	// Streams are the application's, if somebody else reads and writes them;
	// nil sends its output to the log files.
	Streams *Streams
	// Dir is the directory of the sandbox, Logs the log directory of this attempt.
	Dir, Logs *os.File
	// Image is the image that the root is, nil if it is none, and ImageFile the file of it,
	// which Spawn closes.
	Image     *hostfs.Image
	ImageFile *os.File
	// Sentry and Gofer are the programs, whose names are their paths.
	Sentry, Gofer *os.File
	// Waiting are processes that wait for a sandbox, and become those of this one as far as
	// they can; nil if there are none. What Spawn takes is set to nil.
	Waiting *Waiting
	// CgroupFD is the group that both start in, -1 if they are put there later.
	CgroupFD int
	// State is the path of the state directory, which both carry.
	State string
	Host  *hostfs.Host
	// LogLevel is gVisor's. A log file is rotated at LogMaxBytes, and not written
	// while the disk has less than LeastFree.
	LogLevel    string
	LogMaxBytes int64
	LeastFree   uint64
}

// Spawn starts the sentry and the gofer, both gated.
func Spawn(ctx context.Context, la *Launch) (_ *Pair, err error) {
	var toSentry, toGofer proc.Donation
	defer func() { err = errors.Join(err, toSentry.Close(), toGofer.Close()) }()
	files, err := hostfs.OpenSources(la.Setup.Sources(), la.ImageFile, &toGofer, &toSentry)
	if err != nil {
		return nil, err
	}
	never, overlays, err := files.Check(la.Setup, la.Host)
	if err != nil {
		return nil, err
	}
	if err := files.MakeMountPoints(la.Setup); err != nil {
		return nil, err
	}
	p := &Pair{Files: files.Files()}
	warm, err := p.claim(ctx, la)
	if err != nil {
		return nil, err
	}
	out, err := openOutput(la, warm, &toGofer)
	if err == nil {
		defer out.sentryErr.Close()
		err = p.startSentry(la, files, out, warm, &toSentry)
	}
	if err != nil {
		if warm != nil {
			err = errors.Join(err, p.Sentry.Abandon(), warm.close())
		}
		return nil, err
	}
	if err := p.startGofer(la, &gofer.Config{
		Mounts: files.Mounts, DirectFS: la.Setup.DirectFS, Logs: out.logs, NeverShared: never, Overlays: overlays,
	}, &toGofer); err != nil {
		return nil, errors.Join(err, p.Sentry.Abandon(), p.closeOwn())
	}
	return p, nil
}

// claim takes a warm sentry if the start was given one: nil if not, or if it is of no use.
func (p *Pair) claim(ctx context.Context, la *Launch) (*Warm, error) {
	if la.Waiting == nil || la.Waiting.Warm == nil {
		return nil, nil
	}
	var none proc.Donation // it is fit because it is given nothing
	guest, _, err := guestSpec(la, stdStreams, &none)
	if err != nil {
		return nil, errors.Join(err, none.Close())
	}
	var warm *Warm
	p.Sentry, warm = la.Waiting.claim(ctx, la, guest)
	p.Waited = warm != nil
	return warm, none.Close()
}

// stdStreams is how many descriptors an application has that is passed no others.
const stdStreams = 3

func (p *Pair) startSentry(la *Launch, files *hostfs.Served, out *output, warm *Warm, d *proc.Donation) error {
	fds := sentryFDs{sockets: files.Sockets, points: files.MountPoints(la.Setup), stdio: out.stdio.give(d)}
	if warm != nil {
		return p.giveWarm(la, warm, &fds, d)
	}
	ns, err := openNetns(la.Setup)
	if err != nil {
		return err
	}
	if ns != nil {
		defer ns.Close()
	}
	attr := sentryAttr(la.Setup)
	if la.Setup.App().Spec.Process.Terminal {
		// The sentry's controlling terminal becomes the application's.
		attr.Setctty, attr.Ctty = true, fds.stdio[0]
	}
	memory, err := totalMemory()
	if err != nil {
		return err
	}
	gate, gateFD, err := proc.NewGate(d)
	if err != nil {
		return err
	}
	fds.gate = gateFD
	if p.ready, err = fds.give(la, d); err != nil {
		return errors.Join(err, gate.Close())
	}
	p.OnDisk = fds.disk
	crashpoint.Before(crashpoint.SentrySpawn)
	p.Sentry, p.Waited, err = la.Waiting.sentry().start(&proc.Program{
		Path: la.Sentry.Name(), Binary: la.Sentry, Args: fds.argv(la, memory), Attr: attr, Donation: d, Gate: gate, Stderr: out.sentryErr,
		CgroupFD: la.CgroupFD, Netns: ns,
	})
	crashpoint.After(crashpoint.SentrySpawn)
	if err != nil {
		return errors.Join(err, p.ready.Close())
	}
	return nil
}

// openNetns opens the namespace that the sentry is started in, nil if that is a new
// one or the host's.
func openNetns(st *setup.Setup) (*netns.Namespace, error) {
	if st.NetNS == "" {
		return nil, nil
	}
	ns, err := netns.Join(st.NetNS)
	if err != nil && st.Policy != nil {
		err = fmt.Errorf("spec.network.netns: %w", err)
	}
	return ns, err
}

func (p *Pair) startGofer(la *Launch, cfg *gofer.Config, d *proc.Donation) error {
	argv, gate, err := giveGofer(la, p.Sentry, cfg, d)
	if err != nil {
		return err
	}
	crashpoint.Before(crashpoint.GoferLog)
	stderr, err := logs.Create(la.Logs, logs.GoferFile)
	crashpoint.After(crashpoint.GoferLog)
	if err != nil {
		return errors.Join(err, gate.Close())
	}
	defer stderr.Close()
	attr, err := goferAttr(la.Setup.Maps)
	if err != nil {
		return errors.Join(err, gate.Close())
	}
	// Gofers share it: to make and remove one for each takes processor time, and none
	// can open a socket in it.
	empty, err := netns.Empty()
	if err != nil {
		return errors.Join(err, gate.Close())
	}
	crashpoint.Before(crashpoint.GoferSpawn)
	p.Gofer, _, err = la.Waiting.gofer().start(&proc.Program{
		Path: la.Gofer.Name(), Binary: la.Gofer, Args: argv, Attr: attr, Donation: d, Gate: gate, Stderr: stderr, CgroupFD: la.CgroupFD, Netns: empty,
	})
	crashpoint.After(crashpoint.GoferSpawn)
	return err
}

// giveGofer gives a gofer its configuration and what that names. It returns the
// command line.
func giveGofer(la *Launch, sentry *proc.Child, cfg *gofer.Config, d *proc.Donation) (argv []string, gate *os.File, err error) {
	dup, err := unix.FcntlInt(sentry.PIDFD.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("duplicate pidfd of sentry: %w", err)
	}
	cfg.SentryFD = d.GiveFD(dup, "pidfd of sentry")
	left, err := actual.EncodeExit(actual.ExitRecord{UID: la.UID, Attempt: la.Attempt})
	if err != nil {
		return nil, nil, err
	}
	exit, err := openExit(int(la.Dir.Fd()), actual.GoferExitFile)
	if err != nil {
		return nil, nil, err
	}
	cfg.LeftFD, cfg.Left = d.Give(exit), string(left)
	if gate, cfg.GateFD, err = proc.NewGate(d); err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	if err := cfg.Encode(&b); err != nil {
		return nil, nil, errors.Join(err, gate.Close())
	}
	conf, err := proc.MemFile("gofer configuration", b.Bytes())
	if err != nil {
		return nil, nil, errors.Join(err, gate.Close())
	}
	return gofer.Argv(d.Give(conf), la.Name, la.State), gate, nil
}
