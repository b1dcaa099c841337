// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/lisafs"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/unet"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/gofer/hostfiles"
	"sandboxctl.dev/gofer/sandboxlog"
)

// drainTimeout bounds how long a gofer outlives its sentry to write what is
// still in the pipes. The write ends died with the sentry, so end of file is
// immediate unless the disk hangs.
const drainTimeout = time.Second

// Prepared is a gofer that has left the host: it is in an empty jail, and has no capability
// but those that it needs to put there what it will serve. It can do so without a sandbox.
type Prepared struct{ jail *jail }

// Prepare leaves the host. It must be called before anything else of the program has started
// a goroutine.
func Prepare() (*Prepared, error) {
	j, err := enterJail()
	if err != nil {
		return nil, err
	}
	if err := limitPrivileges(); err != nil {
		return nil, err
	}
	return &Prepared{j}, nil
}

// Main runs a gofer to its end and returns its exit code. argv is of the form
// of gofer.Argv. It must be called before anything else of the program has started a
// goroutine.
func Main(argv []string) int { return run(argv, nil) }

// Main is that of a gofer that is prepared already.
func (p *Prepared) Main(argv []string) int { return run(argv, p) }

func run(argv []string, p *Prepared) int {
	// A hostile sentry decides what the server logs, and what goes wrong in
	// the set-up is returned as an error.
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: io.Discard}})

	if len(argv) != gofer.Args {
		fmt.Fprintln(os.Stderr, "a gofer is started by sandboxctl, not by hand")
		return gofer.ExitFailed
	}
	fd, err := strconv.Atoi(argv[1])
	if err != nil {
		fmt.Fprintf(os.Stderr, "gofer: configuration descriptor: %v\n", err)
		return gofer.ExitFailed
	}
	cfg, err := gofer.ReadConfig(fd)
	if err != nil {
		fmt.Fprintf(os.Stderr, "gofer: %v\n", err)
		return gofer.ExitFailed
	}
	crashpoint.Before(crashpoint.GoferRelease)
	if !waitGate(cfg.GateFD) {
		return gofer.ExitGateClosed
	}
	crashpoint.After(crashpoint.GoferRelease)
	logs, err := begin(cfg, p)
	if err != nil {
		fmt.Fprintf(os.Stderr, "gofer: %v\n", err)
		return gofer.ExitFailed
	}
	// No collection of what the set-up has left, as there is in a sentry: it is less than
	// a collection itself needs.

	// Connections end with their sentry. They are not waited for: a request
	// that hangs in a dead filesystem must not keep this process.
	waitProcess(cfg.SentryFD)
	// Nobody reads an error by now, and only the wording of a reason depends on
	// the write.
	_, _ = unix.Write(cfg.LeftFD, []byte(cfg.Left))
	logs.drain(drainTimeout)
	return gofer.ExitOK
}

// waitGate blocks until the launcher has recorded this process and opened the
// gate. End of file means that it died first and nobody knows this process.
func waitGate(fd int) bool {
	gate := os.NewFile(uintptr(fd), "start gate")
	defer gate.Close()
	var b [1]byte
	_, err := io.ReadFull(gate, b[:])
	return err == nil && b[0] == gofer.GateOpen
}

// waitProcess blocks until the process of the pidfd is dead. A zombie is dead.
func waitProcess(pidfd int) {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		// ppoll, because the seccomp filter has no poll.
		n, err := unix.Ppoll(fds, nil, nil)
		if n > 0 || (err != nil && err != unix.EINTR) {
			return
		}
	}
}

// begin jails the process, unless it is, and starts to serve.
func begin(cfg *gofer.Config, p *Prepared) (_ *logging, err error) {
	if p == nil {
		if p, err = Prepare(); err != nil {
			return nil, err
		}
	}
	if err := p.jail.serve(cfg); err != nil {
		return nil, err
	}
	// The sentry has applied the application's umask already.
	unix.Umask(0)

	logs, err := openLogs(&cfg.Logs)
	if err != nil {
		return nil, err
	}
	server, conns, err := connect(cfg)
	if err != nil {
		return nil, err
	}
	// Readers first: their pipes join the runtime's poller, whose set-up needs
	// system calls the filter refuses.
	logs.start()
	if err := crashpoint.Do(crashpoint.GoferPrivileges, func() error { return dropPrivileges(cfg) }); err != nil {
		return nil, err
	}
	for _, c := range conns {
		crashpoint.Before(crashpoint.GoferServe)
		server.StartConnection(c)
		crashpoint.After(crashpoint.GoferServe)
	}
	return logs, nil
}

// connect makes one lisafs connection per mount, not yet answering.
func connect(cfg *gofer.Config) (*lisafs.Server, []*lisafs.Connection, error) {
	server := lisafs.NewServer()
	conns := make([]*lisafs.Connection, 0, len(cfg.Mounts))
	for i, m := range cfg.Mounts {
		impl := hostfiles.Config{DonateMountPointFD: cfg.DirectFS, NoDevices: m.NoDevices}
		sock, err := unet.NewSocket(m.SocketFD)
		if err != nil {
			return nil, nil, fmt.Errorf("open connection of mount %d: %w", i, err)
		}
		c, err := server.CreateConnection(sock, path.Join(gofer.MountPoint(i), m.At), hostfiles.ConnectionOpts(m.ReadOnly), hostfiles.NewConnectionImpl(impl))
		if err != nil {
			return nil, nil, fmt.Errorf("create connection of mount %d: %w", i, err)
		}
		conns = append(conns, c)
	}
	return server, conns, nil
}

// logging is the set of pipe readers of a gofer.
type logging struct {
	pumps []*sandboxlog.Pump
}

func openLogs(cfg *gofer.Logs) (*logging, error) {
	l := &logging{}
	app := sandboxlog.NewWriter(cfg.DirFD, cfg.AppName, cfg.MaxBytes)
	sentry := sandboxlog.NewWriter(cfg.DirFD, cfg.SentryName, cfg.MaxBytes)
	app.KeepFree(cfg.LeastFree)
	sentry.KeepFree(cfg.LeastFree)
	for _, s := range []struct {
		fd     int
		w      *sandboxlog.Writer
		stream sandboxlog.Stream
	}{
		{cfg.StdoutFD, app, sandboxlog.Stdout},
		{cfg.StderrFD, app, sandboxlog.Stderr},
		{cfg.SentryFD, sentry, sandboxlog.Stderr},
	} {
		if s.fd < 0 {
			continue
		}
		p, err := sandboxlog.NewPump(s.fd, s.w, s.stream)
		if err != nil {
			return nil, fmt.Errorf("open log %s: %w", s.stream, err)
		}
		l.pumps = append(l.pumps, p)
	}
	return l, nil
}

func (l *logging) start() {
	for _, p := range l.pumps {
		p.Start()
	}
}

// drain waits until every pipe is at its end, or for the timeout.
func (l *logging) drain(timeout time.Duration) {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for _, p := range l.pumps {
		select {
		case <-p.Done():
		case <-deadline.C:
			return
		}
	}
}
