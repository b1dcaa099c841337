// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/fd"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/metric"
	"gvisor.dev/gvisor/pkg/sentry/devices/nvproxy/nvconf"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/cmd/sandboxsetup"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"
	"gvisor.dev/gvisor/runsc/specutils"
	"gvisor.dev/gvisor/runsc/starttime"

	"sandboxctl.dev/launcher/wire"
)

// bootFlags are what the launcher says about one sandbox. They have the names and
// meanings that they have in gVisor's own boot command.
type bootFlags struct {
	specFD       int
	controllerFD int
	readyFD      int
	execFD       int
	upperFD      int
	goferFDs     sandboxsetup.IntFlags
	goferMounts  specutils.GoferMountConfFlags
	diskFDs      []int
	stdioFDs     sandboxsetup.IntFlags
	passFDs      sandboxsetup.FDMappings
	cpus         int
	memory       uint64
	hostMemory   uint64
	id           string
}

// parseBootFlags reads what follows the verb on the command line.
func parseBootFlags(args []string) (*bootFlags, error) {
	var b bootFlags
	f := flag.NewFlagSet(wire.VerbBoot, flag.ContinueOnError)
	f.SetOutput(io.Discard) // the caller prints the error
	f.IntVar(&b.specFD, "spec-fd", -1, "OCI spec")
	f.IntVar(&b.controllerFD, "controller-fd", -1, "socket of the control server")
	f.IntVar(&b.readyFD, "start-sync-fd", -1, "where to write when the control server is up")
	f.IntVar(&b.execFD, "exec-fd", -1, "file to execute")
	f.IntVar(&b.upperFD, "rootfs-upper-tar-fd", -1, "archive of what is laid over the root")
	f.Var(&b.goferFDs, "io-fds", "sockets to the gofer, of the root and the volumes; the file of a root that is an image")
	f.Var(&b.goferMounts, "gofer-mount-confs", "what lies above the root and the volumes")
	f.Var(&b.stdioFDs, "stdio-fds", "stdin, stdout, stderr")
	f.Var(&b.passFDs, "pass-fd", "HOST:GUEST, a further descriptor of the application")
	f.IntVar(&b.cpus, "cpu-num", 0, "processors")
	f.Uint64Var(&b.memory, "total-memory", 0, "memory of the sandbox")
	f.Uint64Var(&b.hostMemory, "total-host-memory", 0, "memory of the host")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() != 1 || b.specFD < 0 || b.controllerFD < 0 || b.readyFD < 0 {
		return nil, errors.New("expected --spec-fd, --controller-fd, --start-sync-fd and the name of the sandbox")
	}
	b.id = f.Arg(0)
	return &b, nil
}

// bootSandbox boots the sandbox, waits for the end of its application and returns
// its status. pre is what was prepared, and w what waits for a sandbox, nil if this is one's.
// It calls read with the spec before anything is logged of it, and started
// when the application runs.
//
// It takes the steps of gVisor's own boot command (runsc/cmd/sentry/sentrycmd) in
// their order, without those for what the launcher never asks for.
func bootSandbox(conf *config.Config, b *bootFlags, pre *prepared, w *warm, read func(*specs.Spec), started func()) (unix.WaitStatus, error) {
	timer := starttime.Timer("boot")
	timer.ReachedAt("Go code running", starttime.GoStartTime())
	if n := unix.Getpagesize(); n != hostarch.PageSize {
		return 0, fmt.Errorf("the host has pages of %d bytes, gVisor was built for %d", n, hostarch.PageSize)
	}
	debug.SetTraceback(conf.Traceback)
	args := boot.Args{
		ID: b.id, Conf: conf, ControllerFD: b.controllerFD, ExecFD: b.execFD,
		GoferFDs: b.goferFDs.GetArray(), GoferMountConfs: b.goferMounts.GetArray(), GoferFilestoreFDs: b.diskFDs, StdioFDs: b.stdioFDs.GetArray(), PassFDs: b.passFDs.GetArray(),
		NumCPU: b.cpus, CPUQuota: -1, TotalMem: b.memory, TotalHostMem: b.hostMemory,
		Device: fd.New(-1), PinRingFD: -1, DevGoferFD: -1, PodInitConfigFD: -1, RootfsUpperTarFD: b.upperFD,
		NvidiaHostSettings: &nvconf.HostSettings{}, StartupTimer: timer,
	}
	for _, fd := range args.GoferFilestoreFDs {
		// The filter does not let gVisor do it later.
		pgalloc.IMAWorkAroundForMemFile(uintptr(fd))
	}
	pre.describeHost(&args)
	var err error
	if args.Spec, err = readSpec(b.specFD, conf); err != nil {
		return 0, err
	}
	read(args.Spec)
	specutils.LogSpecDebug(args.Spec, conf.OCISeccomp)
	timer.Reached("spec read")
	if err := errors.Join(pre.takeTerminal(args.Spec, args.StdioFDs), pre.leaveHost(conf)); err != nil {
		return 0, err
	}
	timer.Reached("host left")
	if conf.DirectFS {
		// The sentry has applied the umask of the application to what it creates.
		unix.Umask(0)
	}
	l, err := boot.New(args)
	if err != nil {
		return 0, fmt.Errorf("create kernel: %w", err)
	}
	defer l.Destroy()
	l.PreSeccompCallback = func() { leaveProc(pre.proc, args.PassFDs) }
	// After the kernel, which has registered all of them.
	if err := metric.Initialize(); err != nil {
		return 0, fmt.Errorf("initialize metrics: %w", err)
	}
	if err := reportReady(b.readyFD); err != nil {
		return 0, err
	}
	if confs := b.goferMounts.GetArray(); len(confs) > 0 && confs[0].ShouldUseErofs() {
		endWithGofer(os.Stderr)
	}
	l.WaitForStartSignal()
	timer.Reached("start signal received")
	if err := l.Run(); err != nil {
		return 0, fmt.Errorf("start application: %w", err)
	}
	if log.IsLogging(log.Info) {
		timer.Log() // it draws charts, wherever the log goes
	}
	started()
	if w != nil {
		if err := w.wait(); err != nil {
			return 0, err
		}
	}
	status := l.WaitExit()
	log.Infof("application exiting with %+v", status)
	return unix.WaitStatus(status), nil
}

func readSpec(fd int, conf *config.Config) (*specs.Spec, error) {
	f := os.NewFile(uintptr(fd), "spec")
	spec, err := specutils.ReadSpecFromFile("/", f, conf)
	// Not for the sandbox to read.
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	return spec, nil
}

// reportReady tells the launcher that the control server is up.
func reportReady(fd int) error {
	f := os.NewFile(uintptr(fd), "start-sync")
	_, err := f.Write([]byte{0})
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("report to the launcher: %w", err)
	}
	return nil
}
