// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/appstart"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/seccomp"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// sentryFDs are the descriptors that the command line of a sentry names.
type sentryFDs struct {
	gate, spec, control, exit, ready int
	// sockets are the connections to the gofer, root first; stdio those of the
	// application.
	sockets, stdio []int
	// points are the mount points in the root, and whether each is a directory.
	points map[string]bool
	// upper is an archive of what is laid over an image, -1 if there is none.
	upper int
	// disk is what is written to files of their own on the disk.
	disk []actual.OnDisk
	// first are arguments about the first program of the sandbox.
	first []string
}

// give gives a sentry what is not of its files or streams. It returns the read end of
// start-sync.
func (fds *sentryFDs) give(la *Launch, d *proc.Donation) (ready *os.File, err error) {
	dir := int(la.Dir.Fd())
	guest, first, err := guestSpec(la, len(fds.stdio), d)
	if err != nil {
		return nil, err
	}
	fds.first = first
	spec, err := json.Marshal(guest)
	if err != nil {
		return nil, fmt.Errorf("encode spec: %w", err)
	}
	specFile, err := proc.MemFile("spec", spec)
	if err != nil {
		return nil, err
	}
	fds.spec = d.Give(specFile)
	if fds.upper, err = giveUpper(la, fds.points, d); err != nil {
		return nil, err
	}
	if fds.disk, err = giveDisk(la, d); err != nil {
		return nil, err
	}
	control, err := sentry.BindControl(dir)
	if err != nil {
		return nil, err
	}
	fds.control = d.Give(control)
	exit, err := openExit(dir, actual.ExitFile)
	if err != nil {
		return nil, err
	}
	fds.exit = d.Give(exit)
	ready, w, err := proc.Pipe()
	if err != nil {
		return nil, err
	}
	fds.ready = d.Give(w)
	// It writes there when its control server is up, and would end if nobody
	// could read that any more: it holds a read end itself, so that it outlives
	// a launcher which dies meanwhile.
	again, err := unix.FcntlInt(ready.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("duplicate pipe: %w", err), ready.Close())
	}
	d.GiveFD(again, "pipe")
	return ready, nil
}

// guestSpec is the spec of the application, which is given so many descriptors, and arguments
// about its first program.
func guestSpec(la *Launch, stdio int, d *proc.Donation) (guest *specs.Spec, first []string, err error) {
	guest, first, err = appstart.Spec(la.Setup, la.Name, int(la.Dir.Fd()), stdio, d)
	if err != nil {
		return nil, nil, err
	}
	// Not in the set-up, which is compared with that of a checkpoint: one that was
	// taken before there were defaults stays good.
	guest.Process = setup.WithDefaultRlimits(guest.Process, la.Setup.GuestTasks())
	guest.Mounts = la.Setup.WithDiskSizes(guest.Mounts)
	return guest, first, nil
}

// argv is the command line of a sentry on a host with that much memory.
func (fds *sentryFDs) argv(la *Launch, memory uint64) []string {
	st := la.Setup
	overlay := "root:memory" // also for one on the disk: --gofer-mount-confs has what counts
	if st.App().Overlay == desired.OverlayNone {
		overlay = "none"
	}
	args := identityArgs(la)
	for _, on := range fds.disk {
		args = append(args, "--"+wire.FlagDisk+"="+wire.DiskFile{FD: on.FD, Size: on.Size}.String())
	}
	args = append(args,
		flagInt(wire.FlagGateFD, fds.gate), flagInt(wire.FlagExitFD, fds.exit),
		// gVisor's configuration: everything that is not its default.
		"--root=/", "--platform=systrap", "--network="+st.Network(), "--directfs="+strconv.FormatBool(st.DirectFS),
		"--overlay2="+overlay, "--ignore-cgroups=true", "--oci-seccomp=true", "--net-raw="+strconv.FormatBool(st.RawSockets),
		wire.VerbBoot, "--gofer-mount-confs="+st.MountConfs(),
		flagInt("spec-fd", fds.spec), flagInt("controller-fd", fds.control), flagInt("start-sync-fd", fds.ready),
	)
	for _, fd := range fds.sockets {
		args = append(args, flagInt("io-fds", fd))
	}
	if fds.upper >= 0 {
		args = append(args, flagInt("rootfs-upper-tar-fd", fds.upper))
	}
	for i, fd := range fds.stdio {
		if i < 3 {
			args = append(args, flagInt("stdio-fds", fd))
		} else {
			args = append(args, fmt.Sprintf("--pass-fd=%d:%d", fd, i))
		}
	}
	args = append(args, fds.first...)
	return append(args, "--total-host-memory="+strconv.FormatUint(memory, 10), "--total-memory="+strconv.FormatUint(seenMemory(st, memory), 10),
		flagInt("cpu-num", cpus(setup.Limit(st.Limits.CPU, st.Defaults.CPU))), la.Name)
}

// identityArgs are the name of the program, and what it is told of its sandbox that does not
// come by a descriptor.
func identityArgs(la *Launch) []string {
	app := la.Setup.App()
	args := []string{companion.SentryName}
	if len(app.Errnos) > 0 {
		args = append(args, "--"+wire.FlagErrnos+"="+seccomp.JoinErrnos(app.Errnos))
	}
	// Not their names: everybody on the host sees them, and they may be too long.
	if n := la.Setup.PrivateVariables(); n > 0 {
		args = append(args, flagInt(wire.FlagPrivate, n))
	}
	return append(args,
		"--"+wire.FlagUID+"="+la.UID, "--"+wire.FlagAttempt+"="+strconv.FormatInt(la.Attempt, 10), "--"+wire.FlagState+"="+la.State,
		"--"+wire.FlagContainer+"="+app.Name,
		// The parent that reaps it for an OCI client takes its exit code for the
		// application's.
		"--"+wire.FlagAppStatus+"="+strconv.FormatBool(la.Client),
		"--"+wire.FlagNobody+"="+strconv.FormatBool(!la.Setup.HostUserns()), "--"+wire.FlagLogLevel+"="+la.LogLevel,
	)
}

// seenMemory is how much memory a sandbox sees of that of the host.
func seenMemory(st *setup.Setup, memory uint64) uint64 {
	if m := setup.Limit(st.Limits.Memory, st.Defaults.Memory); m > 0 && uint64(m) < memory {
		return uint64(m)
	}
	return memory
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
