// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/runsc/fsgofer/filter"

	"sandboxctl.dev/gofer"
	"sandboxctl.dev/gofer/server/filters"
)

// readerCaps is all a gofer needs whose every mount is read-only.
const readerCaps = 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_DAC_OVERRIDE

// writerCaps lets it create and change files on behalf of any user of the
// sandbox.
const writerCaps = readerCaps | 1<<unix.CAP_CHOWN | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID

// mountCaps is what is needed to serve anything: to attach what is served, and to fill trees.
const mountCaps = writerCaps | 1<<unix.CAP_SYS_ADMIN

// limitPrivileges takes every capability from every thread but those that are needed until
// dropPrivileges, and forbids to gain any.
func limitPrivileges() error {
	if err := dropBoundingSet(); err != nil {
		return err
	}
	if err := setCapabilities(mountCaps); err != nil {
		return err
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
	}
	return nil
}

// dropPrivileges takes every capability but those of file service from every thread, and the
// cgroup namespace of the launcher, and installs the seccomp filter. limitPrivileges came before.
func dropPrivileges(cfg *gofer.Config) error {
	keep := uint64(readerCaps)
	for _, m := range cfg.Mounts {
		if !m.ReadOnly {
			keep = writerCaps
		}
	}
	// Not before: who has one of its own and may mount can mount the groups below it, and write
	// there as the user that it is on the host.
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP, 0, 0); errno != 0 {
		return fmt.Errorf("leave the cgroup namespace: %w", errno)
	}
	if err := setCapabilities(keep); err != nil {
		return err
	}
	// LisafsNeeded also with DirectFS: the log writer renames and truncates.
	opt := filter.Options{DirectFS: cfg.DirectFS, LisafsNeeded: true}
	if err := filters.Use(opt); err != nil {
		log.Warningf("No precompiled seccomp program: %v", err) // gVisor compiles one
	}
	if err := filter.Install(opt); err != nil {
		return fmt.Errorf("install seccomp filter: %w", err)
	}
	return nil
}

// dropBoundingSet empties the bounding set of every thread.
func dropBoundingSet() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0, 0)
		if errno == unix.EINVAL {
			break // newer than this kernel
		}
		if errno != 0 {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, errno)
		}
	}
	return nil
}

// setCapabilities makes keep the permitted and effective set of every thread,
// and empties the inheritable and ambient sets. The Go runtime may
// have threads already, and a capability left on one is a capability left.
func setCapabilities(keep uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		return fmt.Errorf("set capabilities: %w", errno)
	}
	return nil
}
