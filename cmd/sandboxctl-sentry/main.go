// SPDX-License-Identifier: Apache-2.0

// Command sandboxctl-sentry is the boot process of one sandbox: gVisor's
// sentry behind a start gate, leaving an exit record when the application has
// ended. sandboxctl's launcher starts it; nobody else has reason to.
//
// It is a binary of its own so that sandboxctl does not carry 30 MB of sentry
// in every process, and it holds no policy: everything it may do was decided
// by the launcher and arrives as flags and file descriptors.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"

	"sandboxctl.dev/cmd/sandboxctl-sentry/filters"
	"sandboxctl.dev/launcher/wire"
)

func main() {
	if os.Args[0] == wire.WaitingName {
		os.Exit(wait(os.Args))
	}
	os.Exit(run(os.Args, nil))
}

// options are our own flags; gVisor's are in its config.
type options struct {
	gateFD   int
	exitFD   int
	uid      string
	attempt  int64
	app      bool
	nobody   bool
	warm     bool
	logLevel string
	errnos   string
	// container is the name of the root container.
	container string
	// disk are the files for what the sandbox writes to the disk.
	disk wire.DiskFiles
	// private is how many variables have values that are written nowhere.
	private int
}

// run runs what a command line says. pre is what was prepared before there was one, nil if
// nothing was.
func run(argv []string, pre *prepared) int {
	// gVisor's log goes to stderr before anything else can write elsewhere;
	// stderr is a pipe to the gofer, which caps the file.
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: os.Stderr}})
	log.SetLevel(log.Warning)

	if len(argv) == 2 && argv[1] == "version" {
		fmt.Println(wire.Handshake("sandboxctl-sentry", wire.Protocol, wire.GVisorVersion()))
		return wire.ExitOK
	}
	if argv[0] == wire.WaitingName && len(argv) > 3 {
		argv = append(argv[:1:1], argv[3:]...) // it is called so as long as it has no sandbox
	}
	opts, flags, err := parseOptions(argv)
	if err != nil {
		return wire.ExitUsage
	}
	if flags.Arg(0) != wire.VerbBoot || opts.gateFD < 0 {
		fmt.Fprintln(os.Stderr, "sandboxctl-sentry is started by sandboxctl, not by hand; `sandboxctl-sentry version` prints its version")
		return wire.ExitUsage
	}
	if err := setErrnos(opts.errnos); err != nil {
		fmt.Fprintf(os.Stderr, "--%s: %v\n", wire.FlagErrnos, err)
		return wire.ExitUsage
	}
	setLogLevel(opts.logLevel)
	return bootSentry(opts, flags, pre)
}

// parseOptions reads a command line as far as the verb.
func parseOptions(argv []string) (*options, *flag.FlagSet, error) {
	var opts options
	flags := flag.NewFlagSet("sandboxctl-sentry", flag.ContinueOnError)
	flags.SetOutput(os.Stderr)
	flags.IntVar(&opts.gateFD, wire.FlagGateFD, -1, "start gate")
	flags.IntVar(&opts.exitFD, wire.FlagExitFD, -1, "exit record")
	flags.StringVar(&opts.uid, wire.FlagUID, "", "uid of the sandbox, for the exit record")
	flags.Int64Var(&opts.attempt, wire.FlagAttempt, 0, "attempt, for the exit record")
	flags.StringVar(&opts.container, wire.FlagContainer, "", "name of the root container, for the exit record")
	flags.String(wire.FlagState, "", "state directory, for the process list")
	flags.BoolVar(&opts.app, wire.FlagAppStatus, false, "end as the application did")
	flags.BoolVar(&opts.nobody, wire.FlagNobody, false, "become nobody")
	flags.BoolVar(&opts.warm, wire.FlagWarm, false, "boot a kernel before there is a sandbox")
	flags.StringVar(&opts.logLevel, wire.FlagLogLevel, "warning", "warning, info or debug")
	flags.StringVar(&opts.errnos, wire.FlagErrnos, "", "errors that actions of the seccomp profile stand for")
	flags.IntVar(&opts.private, wire.FlagPrivate, 0, "how many of the first variables have values that are not logged")
	flags.Var(&opts.disk, wire.FlagDisk, "FD:SIZE, a file for what is written to the root or a volume, where that goes to the disk")
	config.RegisterFlags(flags)
	return &opts, flags, flags.Parse(argv[1:])
}

// setLogLevel sets gVisor's.
func setLogLevel(level string) {
	switch level {
	case "info":
		log.SetLevel(log.Info)
	case "debug":
		log.SetLevel(log.Debug)
	}
}

// bootSentry waits at the gate, runs the sandbox to its end and leaves the
// exit record.
func bootSentry(opts *options, flags *flag.FlagSet, pre *prepared) int {
	heap.boot()
	sandbox, err := parseBootFlags(flags.Args()[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "boot: %v\n", err)
		return wire.ExitUsage
	}
	for _, d := range opts.disk {
		sandbox.diskFDs = append(sandbox.diskFDs, d.FD)
	}
	conf, err := config.NewFromFlags(flags)
	if err != nil {
		fmt.Fprintf(os.Stderr, "configure sentry: %v\n", err)
		return wire.ExitUsage
	}
	if pre == nil {
		if pre, err = prepare(opts.nobody); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n", err)
			return wire.ExitBootFailed
		}
	} else if err := pre.fits(opts, conf); err != nil {
		fmt.Fprintf(os.Stderr, "boot: %v\n", err)
		return wire.ExitUsage
	}
	if code := passGate(opts, conf); code != wire.ExitOK {
		return code
	}
	clients := &sessions{current: &currentKernel{}}
	out := &concealer{next: os.Stderr}
	w := newWarm(opts, conf, pre, clients, out)
	if err := clients.current.track(); err != nil {
		fmt.Fprintf(os.Stderr, "track kernel: %v\n", err)
		return wire.ExitBootFailed
	}
	clients.register()

	// Annotations of the spec are not looked at (no specutils.FixConfig): a
	// manifest or bundle can't change the sentry's configuration.
	// gVisor passes these on to the application. What ends after that may not have
	// ended by itself: a host that shuts down sends them.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, ended...)
	status, err := bootSandbox(conf, sandbox, pre, w, func(spec *specs.Spec) {
		if w != nil {
			return // it is not that of an application
		}
		clients.environment.Store(&spec.Process.Env)
		out.conceal(spec.Process.Env, opts.private)
		if len(out.values) > 0 {
			log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: out}})
		}
	}, heap.settleSoon)
	if err == nil {
		opts, err = w.ended(opts)
	}
	if err != nil {
		fmt.Fprintf(out, "%v\n", err)
		return wire.ExitBootFailed
	}
	return leaveExit(opts, status, len(signals) > 0)
}

// leaveExit leaves the exit record. It returns the code to exit with.
func leaveExit(opts *options, status unix.WaitStatus, hostSignaled bool) int {
	if opts.exitFD >= 0 {
		if err := writeExit(opts, status, hostSignaled); err != nil {
			fmt.Fprintf(os.Stderr, "write exit record: %v\n", err)
			return wire.ExitBootFailed
		}
	}
	switch {
	case !opts.app:
		return wire.ExitOK
	case status.Signaled():
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// passGate waits until this process is on record. It returns the code to exit with if the
// sandbox must not be booted.
func passGate(opts *options, conf *config.Config) int {
	// While the launcher writes its record.
	if err := filters.Use(conf.Network == config.NetworkHost, conf.EnableRaw, conf.DirectFS); err != nil {
		log.Warningf("No precompiled seccomp program: %v", err) // gVisor compiles one
	}
	// A warm one does so when its kernel runs.
	if !opts.warm && !waitGate(opts.gateFD) {
		return wire.ExitGateClosed
	}
	if err := confineDiskFiles(opts.disk); err != nil {
		fmt.Fprintf(os.Stderr, "confine files on the disk: %v\n", err)
		return wire.ExitBootFailed
	}
	if opts.exitFD < 0 {
		return wire.ExitOK
	}
	if err := confineExitRecord(opts.exitFD); err != nil {
		fmt.Fprintf(os.Stderr, "confine exit record: %v\n", err)
		return wire.ExitBootFailed
	}
	return wire.ExitOK
}

// ended are the signals after which an application may not have ended by itself.
var ended = []os.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT}

// waitGate blocks until the launcher has written this process's identity to
// the record and opened the gate. End of file means that the launcher died
// first: nobody knows this process, so it must leave without a trace.
func waitGate(fd int) bool {
	gate := os.NewFile(uintptr(fd), "start gate")
	defer gate.Close()
	var b [1]byte
	_, err := io.ReadFull(gate, b[:])
	return err == nil && b[0] == wire.GateOpen
}

// becomeNobody gives up the host's root user id and groups. The process was
// executed with them so that it could reach its binary, but without any
// capability outside its own user namespace.
func becomeNobody() error {
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("clear groups: %w", err)
	}
	if err := syscall.Setresgid(wire.Nobody, wire.Nobody, wire.Nobody); err != nil {
		return fmt.Errorf("set group: %w", err)
	}
	if err := syscall.Setresuid(wire.Nobody, wire.Nobody, wire.Nobody); err != nil {
		return fmt.Errorf("set user: %w", err)
	}
	// The kernel took /proc/self away from this process with its old user id;
	// the boot needs it until it has unmounted /proc.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set dumpable: %w", err)
	}
	return nil
}
