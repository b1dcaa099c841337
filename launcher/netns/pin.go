// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
)

// Dir is where network namespaces have names, for `ip netns` and for others.
const Dir = "/run/netns"

// Pin makes a namespace that a path in Dir leads to. It outlives its processes and this
// program: what was made in it can be found there, and undone, until Unpin or the next boot.
func Pin(path string) error {
	n, err := New()
	if err != nil {
		return err
	}
	defer n.Close()
	if err := shareDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(path), err)
	}
	return crashpoint.Do(crashpoint.NetworkPin, func() error {
		f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("name network namespace: %w", err)
		}
		_ = f.Close() // nothing was written to it
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", n.f.Fd()), path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("name network namespace %s: %w", path, err)
		}
		return nil
	})
}

// shareDir makes a directory for names of namespaces as `ip netns` does: a mount of its own,
// which others see changes of. Without it the first `ip netns add` would cover what is in it,
// and a service with mounts of its own would keep a namespace that is gone everywhere else.
func shareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// As newer versions of `ip netns` do: two at a time would mount it twice.
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	err = unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, "")
}

// maxCovered bounds how many mounts are removed from one path.
const maxCovered = 16

// Unpin removes what Pin has made; what is not there any more is fine. The namespace is gone
// with its last process.
func Unpin(path string) error {
	if err := crashpoint.Do(crashpoint.NetworkUnpin, func() error { return uncover(path) }); err != nil {
		return fmt.Errorf("remove the name of network namespace %s: %w", path, err)
	}
	// A mount that another one covers keeps the file, and nobody can reach it: no reason to
	// keep the sandbox from its end.
	err := crashpoint.Do(crashpoint.NetworkUnlink, func() error { return unix.Unlink(path) })
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remove the name of network namespace %s: %w", path, err)
	}
	return nil
}

// uncover removes all mounts from a path.
func uncover(path string) error {
	for range maxCovered {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
