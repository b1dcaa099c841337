// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/cmd/sandboxsetup"
	"gvisor.dev/gvisor/runsc/specutils"

	"sandboxctl.dev/cmd/sandboxctl-sentry/umounter"
	"sandboxctl.dev/launcher/wire"
)

const (
	// newRoot is where the root is put together. In the sentry's own mount namespace
	// nobody else sees it.
	newRoot = "/tmp"
	noFlags = unix.MS_NOSUID | unix.MS_NODEV
)

// enterEmptyRoot makes a root that holds no file of the host and enters it. It has a
// /proc, which the boot needs until leaveProc.
func enterEmptyRoot() (*procUmounter, error) {
	// Nothing that is mounted here reaches the host.
	if err := specutils.SafeMount("", "/", "", unix.MS_SLAVE|unix.MS_REC, "", "/proc"); err != nil {
		return nil, fmt.Errorf("separate mounts from the host's: %w", err)
	}
	if err := specutils.SafeMount("sandbox-root", newRoot, "tmpfs", noFlags, "", "/proc"); err != nil {
		return nil, err
	}
	if err := makeProc(filepath.Join(newRoot, "proc")); err != nil {
		return nil, fmt.Errorf("make /proc: %w", err)
	}
	u, err := startUmounter(filepath.Join(newRoot, "umounter"))
	if err != nil {
		return nil, fmt.Errorf("start umounter: %w", err)
	}
	// Not MS_NOEXEC: the kernel may still be mapping the umounter's file, which has been
	// executed as far as startUmounter can tell, and would kill it.
	if err := specutils.SafeMount("", newRoot, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|noFlags, "", "/proc"); err != nil {
		return nil, err
	}
	if err := sandboxsetup.PivotRoot(newRoot); err != nil {
		return nil, err
	}
	return u, nil
}

// makeProc makes a /proc with the little that gVisor reads there. A procfs on /proc
// itself could not be mounted where that of the host has mounts below it, as in
// containers; its place is below this one, and that of the host's with all its
// mounts takes it if need be.
func makeProc(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	const flags = noFlags | unix.MS_NOEXEC
	if err := specutils.SafeMount("sandbox-proc", dir, "tmpfs", flags, "", "/proc"); err != nil {
		return err
	}
	place := "sandbox-proc"
	if err := specutils.SafeSetupAndMount("proc", filepath.Join(dir, place), "proc", flags|unix.MS_RDONLY, "/proc"); err != nil {
		log.Debugf("New procfs: %v; taking the host's", err)
		place = "host-proc"
		err2 := specutils.SafeSetupAndMount("/proc", filepath.Join(dir, place), "bind", flags|unix.MS_RDONLY|unix.MS_BIND|unix.MS_REC, "/proc")
		if err2 != nil {
			return errors.Join(err, err2)
		}
	}
	for _, name := range []string{"sys/vm/mmap_min_addr", "sys/kernel/cap_last_cap"} {
		copied := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
			return err
		}
		if err := sandboxsetup.CopyFile(copied, filepath.Join("/proc", name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"self", "cpuinfo"} {
		if err := os.Symlink(filepath.Join(place, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o111)
}

// procUmounter is the process that unmounts /proc when it is told to, for this one
// has no capability left for it by then.
type procUmounter struct {
	pid  int
	tell *os.File
}

// startUmounter starts it, from a file that is gone when this returns. It holds no
// descriptor but the pipe that it reads from.
func startUmounter(path string) (*procUmounter, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o500)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	_, err = f.Write(umounter.Program())
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	// Not os.StartProcess: that keeps a pidfd, which a sentry must not have.
	pid, err := syscall.ForkExec(path, []string{"umounter"}, &syscall.ProcAttr{Files: []uintptr{r.Fd()}})
	if err = errors.Join(err, os.Remove(path)); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return &procUmounter{pid, w}, nil
}

// unmount returns when /proc is gone, and so is the process.
func (u *procUmounter) unmount() error {
	_, err := u.tell.Write([]byte{1})
	if err := errors.Join(err, u.tell.Close()); err != nil {
		return fmt.Errorf("tell umounter: %w", err)
	}
	var status unix.WaitStatus
	for {
		if _, err = unix.Wait4(u.pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("wait for umounter: %w", err)
	case status.Signaled():
		return fmt.Errorf("umounter was ended by %v", status.Signal())
	case status.ExitStatus() != 0:
		return fmt.Errorf("unmount /proc: %w", unix.Errno(status.ExitStatus()))
	}
	if err := unix.Access("/proc/self", unix.F_OK); !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("/proc is there after it was unmounted: %w", err)
	}
	return nil
}

// leaveProc takes /proc away before the application starts. gVisor calls it right
// before it installs its filter and takes no error, but nothing may start in a sentry
// that could still get at the host's files: it ends the process.
func leaveProc(u *procUmounter, passed []boot.FDMapping) {
	err := checkNoDirectory(passed)
	if err == nil {
		err = u.unmount()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "leave /proc: %v\n", err)
		os.Exit(wire.ExitBootFailed)
	}
}

// checkNoDirectory makes sure that no directory is open: a sentry that was taken over
// could open the host's files below it. Those that the client passes to the
// application are its own doing.
func checkNoDirectory(passed []boot.FDMapping) error {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			return fmt.Errorf("number of a descriptor: %w", err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(n, &st); errors.Is(err, unix.EBADF) {
			continue // that of the listing
		} else if err != nil {
			return fmt.Errorf("look at descriptor %d: %w", n, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		path, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look at descriptor %d: %w", n, err)
		}
		if !slices.ContainsFunc(passed, func(m boot.FDMapping) bool { return m.Host == n }) {
			return fmt.Errorf("descriptor %d is the directory %s", n, path)
		}
		log.Warningf("The application has descriptor %d, which is the directory %s", n, path)
	}
	return nil
}
