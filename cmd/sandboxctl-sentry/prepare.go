// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cpuid"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/ring0"
	"gvisor.dev/gvisor/pkg/sentry/hostmm"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/cmd/sandboxsetup"
	"gvisor.dev/gvisor/runsc/cmd/sentry/sentrycmd"
	"gvisor.dev/gvisor/runsc/config"

	"sandboxctl.dev/launcher/wire"
)

// waitingPlatform is the platform of a process that waits. The kind of such a process is
// fixed by what it can't take back: it is nobody in a user namespace of its own, in a network
// namespace of its own, without a capability.
const waitingPlatform = "systrap"

// prepared is what a sentry has done that needs nothing of its sandbox.
type prepared struct {
	nobody  bool
	waited  bool         // it has left the host before it knew its sandbox
	accept  func() error // of a process that waited: it can be what it was told to become
	forget  func()       // of a process that waited: forgetProgram once more
	product string
	pages   boot.HostTHP
	proc    *procUmounter
}

// prepare does what needs nothing of the sandbox and touches nothing of the host.
func prepare(nobody bool) (*prepared, error) {
	p := &prepared{nobody: nobody}
	if nobody {
		if err := becomeNobody(); err != nil {
			return nil, fmt.Errorf("become nobody: %w", err)
		}
	}
	// The time zone is read from the host on first use, which the seccomp
	// filter would kill.
	_ = time.Local.String()
	listNoTracePoints()
	cpuid.Initialize()
	settleFeatures(cpuid.HostFeatureSet())
	ring0.InitDefault()
	return p, nil
}

// look notes what can't be read any more behind the empty root.
func (p *prepared) look(hugePages bool) {
	if name, err := os.ReadFile("/sys/devices/virtual/dmi/id/product_name"); err == nil {
		p.product = strings.TrimSpace(string(name))
	} else {
		log.Warningf("Not setting product_name: %v", err)
	}
	if !hugePages {
		return
	}
	for name, value := range map[string]*string{"shmem_enabled": &p.pages.ShmemEnabled, "defrag": &p.pages.Defrag} {
		var err error
		if *value, err = hostmm.ReadTransparentHugepageEnum(name); err != nil {
			log.Warningf("Huge pages of the host: %v", err)
		}
	}
}

// describeHost tells the kernel what was noted of the host.
func (p *prepared) describeHost(args *boot.Args) {
	if !p.waited {
		p.look(args.Conf.AppHugePages)
	}
	args.ProductName = p.product
	if args.Conf.AppHugePages {
		args.HostTHP = p.pages
	}
}

// leaveHost enters an empty root and gives up capabilities, unless that was done.
func (p *prepared) leaveHost(conf *config.Config) (err error) {
	if p.waited {
		return nil
	}
	if p.proc, err = enterEmptyRoot(); err != nil {
		return fmt.Errorf("enter an empty root: %w", err)
	}
	if err := dropCapabilities(conf); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// fits refuses a sandbox of another kind than this process is, which the launcher then starts
// without it. It tells the launcher of any other.
func (p *prepared) fits(opts *options, conf *config.Config) error {
	if !opts.nobody || conf.Platform != waitingPlatform || conf.Network == config.NetworkHost || conf.DirectFS {
		return errors.New("a process that waited can't become a sandbox with the network of the host, direct file access or another platform")
	}
	return p.accept()
}

// takeTerminal makes the terminal of the application that of this session, as that of one is
// which is started for its sandbox. It leads a session without one. The kernel tells nobody of
// the end of a terminal but the leader of its session.
func (p *prepared) takeTerminal(spec *specs.Spec, stdio []int) error {
	if !p.waited || !spec.Process.Terminal || len(stdio) == 0 {
		return nil
	}
	if err := unix.IoctlSetInt(stdio[0], unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("take the terminal of the application: %w", err)
	}
	return nil
}

// dropCapabilities keeps no capability but those that the kind of sandbox cannot do
// without, and those only in the user namespace of the host: in its own it has none
// of them to begin with.
func dropCapabilities(conf *config.Config) error {
	p, err := platform.Lookup(conf.Platform)
	if err != nil {
		return err
	}
	var keep []string
	if p.Requirements().RequiresCapSysPtrace {
		keep = append(keep, "CAP_SYS_PTRACE")
	}
	if conf.DirectFS {
		keep = append(keep, sentrycmd.DirectfsSandboxLinuxCaps.Effective...)
	}
	if conf.Network == config.NetworkHost {
		keep = append(keep, "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE")
		if conf.EnableRaw {
			keep = append(keep, "CAP_NET_RAW")
		}
	}
	return sandboxsetup.ApplyCapsAllThreads(&specs.LinuxCapabilities{Bounding: keep, Effective: keep, Permitted: keep}, nil)
}

// forgetProgram unmaps the pages of the program that were used until now, most of which are
// not used again: they are in the page cache, and counted for each process that has them. The
// few that are needed come back with a fault each. It returns a function that does so again,
// also when there is no /proc any more.
func forgetProgram() (again func()) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		log.Warningf("Pages of the program are kept: %v", err)
		return func() {}
	}
	var code [][2]uintptr
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		var mode string
		// Only code of a file: what is read again is the same. Pages that can't be written may
		// have been until now, as those of a program that was relocated: they would be lost.
		if n, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || n != 3 || !strings.Contains(line, " /") || !strings.Contains(mode, "x") || strings.Contains(mode, "w") {
			continue
		}
		code = append(code, [2]uintptr{from, to})
	}
	again = func() {
		for _, c := range code {
			if _, _, errno := unix.RawSyscall(unix.SYS_MADVISE, c[0], c[1]-c[0], unix.MADV_DONTNEED); errno != 0 {
				log.Warningf("Pages of the program are kept: %v", errno)
			}
		}
	}
	again()
	return again
}

// wait prepares this process as far as it can without a sandbox, waits for one, and runs it
// to its end. Until then it does nothing, and ends together with the daemon that started it.
func wait(argv []string) int {
	wire.BeginWait()
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: os.Stderr}})
	log.SetLevel(log.Warning)
	// There is no garbage but that of the preparation, and a collection each two minutes
	// would take processor time from those who work.
	debug.SetGCPercent(-1)
	p, err := prepare(true)
	if err == nil {
		p.look(true)
		err = p.leaveHost(&config.Config{Platform: waitingPlatform})
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "prepare: %v\n", err)
		return wire.ExitBootFailed
	}
	p.waited = true
	debug.FreeOSMemory()
	p.forget = forgetProgram()
	args, accept, err := wire.Wait(argv)
	p.accept = accept
	switch {
	case errors.Is(err, io.EOF):
		return wire.ExitGateClosed
	case err != nil:
		fmt.Fprintf(os.Stderr, "wait: %v\n", err)
		return wire.ExitBootFailed
	}
	return run(args, p)
}
