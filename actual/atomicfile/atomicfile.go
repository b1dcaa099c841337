// SPDX-License-Identifier: Apache-2.0

// Package atomicfile is the one writer of state files and manifests.
//
// A file is written whole under a temporary name in the same directory, forced
// to disk, renamed over the old one, and the directory is forced to disk. A
// reader sees the old content or the new, never a mix; a crash or a full disk
// leaves the old. What a crash may leave besides is a temporary file, which
// SweepTemps removes: its writer keeps it locked (flock), so that one without a
// lock is nobody's.
package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
)

// TempPrefix begins the name of every temporary file. It begins with a dot, so
// that a watcher of manifests passes over it.
const TempPrefix = ".sandboxctl-tmp-"

// ErrNotRegular says that the name is taken by something that is not a regular
// file. Renaming over it would succeed, and lose whatever it is.
var ErrNotRegular = errors.New("not a regular file")

// Write replaces or creates the file name in the directory dir, an open
// directory that is not O_PATH. The name has no slash. When it returns nil the
// content survives a power cut.
func Write(dir *os.File, name string, data []byte, mode fs.FileMode) error {
	if err := checkTarget(dir, name); err != nil {
		return err
	}
	return write(dir, name, data, mode, 0, true)
}

// Publish is Write for content that need not survive a power cut, which may leave a
// part of it. Readers see the old content or the new all the same.
func Publish(dir *os.File, name string, data []byte, mode fs.FileMode) error {
	if err := checkTarget(dir, name); err != nil {
		return err
	}
	return write(dir, name, data, mode, 0, false)
}

// Create is Write for a name that must not exist yet: fs.ErrExist otherwise.
func Create(dir *os.File, name string, data []byte, mode fs.FileMode) error {
	if err := checkName(name); err != nil {
		return err
	}
	return write(dir, name, data, mode, unix.RENAME_NOREPLACE, true)
}

func write(dir *os.File, name string, data []byte, mode fs.FileMode, renameFlags uint, durable bool) (err error) {
	fd := int(dir.Fd())
	f, tmp, err := newTemp(fd, mode)
	if err != nil {
		return fmt.Errorf("create temporary file for %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(unix.Unlinkat(fd, tmp, 0)))
		}
	}()
	// Not before the rename: the lock ends with it. After Sync it can't fail.
	defer f.Close()
	crashpoint.Before(crashpoint.FileWrite)
	_, werr := f.Write(data)
	crashpoint.After(crashpoint.FileWrite)
	if werr == nil && durable {
		werr = crashpoint.Do(crashpoint.FileSync, f.Sync)
	}
	if werr != nil {
		return fmt.Errorf("write %s: %w", name, werr)
	}
	if err := crashpoint.Do(crashpoint.FileRename, func() error { return unix.Renameat2(fd, tmp, fd, name, renameFlags) }); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if !durable {
		return nil
	}
	return syncDir(dir, name)
}

// Remove removes the file name durably. That it is not there is no error.
func Remove(dir *os.File, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := crashpoint.Do(crashpoint.FileRemove, func() error { return ignoreMissing(unix.Unlinkat(int(dir.Fd()), name, 0)) }); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return syncDir(dir, name)
}

// SweepTemps removes what crashed writers left in dir. It may be called at any
// time: the file of a writer that is alive is left to it, and counted. So is,
// for a moment, that of a writer that was killed while it started a process:
// until that executes another program it holds all that its parent held.
func SweepTemps(dir *os.File) (busy int, err error) {
	entries, err := readNames(dir)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, n := range entries {
		if !strings.HasPrefix(n, TempPrefix) {
			continue
		}
		err := ignoreMissing(sweep(int(dir.Fd()), n))
		if errors.Is(err, unix.EWOULDBLOCK) {
			busy++
			continue
		}
		errs = append(errs, err)
	}
	return busy, errors.Join(errs...)
}

func sweep(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return unix.Unlinkat(dir, name, 0) // a link is nobody's writing
	case err != nil:
		return fmt.Errorf("sweep %s: %w", name, err)
	}
	defer unix.Close(fd)
	if err := flock(fd); err != nil {
		return fmt.Errorf("sweep %s: %w", name, err)
	}
	return crashpoint.Do(crashpoint.TempSweep, func() error { return unix.Unlinkat(dir, name, 0) })
}

// MkdirAll makes a directory, and what is missing above it. When it returns nil,
// what it has made survives a power cut.
func MkdirAll(path string, mode fs.FileMode) error {
	var parents []string
	for p := filepath.Clean(path); ; p = filepath.Dir(p) {
		_, err := os.Lstat(p)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		parents = append(parents, filepath.Dir(p))
	}
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	for _, p := range parents {
		dir, err := os.Open(p)
		if err != nil {
			return err
		}
		if err := errors.Join(unix.Fsync(int(dir.Fd())), dir.Close()); err != nil {
			return fmt.Errorf("sync %s: %w", p, err)
		}
	}
	return nil
}

// Names lists what is in dir besides what crashed writers left there.
func Names(dir *os.File) ([]string, error) {
	names, err := readNames(dir)
	return slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, TempPrefix) }), err
}

func readNames(dir *os.File) ([]string, error) {
	// A descriptor of its own: the offset of dir is the caller's.
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir.Name(), err)
	}
	d := os.NewFile(uintptr(fd), dir.Name())
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir.Name(), err)
	}
	return names, nil
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("write file: %q is not a plain file name", name)
	}
	return nil
}

// checkTarget refuses to replace what is no regular file.
func checkTarget(dir *os.File, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	var st unix.Stat_t
	switch err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return fmt.Errorf("replace %s: %w", name, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("replace %s: %w", name, ErrNotRegular)
	}
	return nil
}

func tempName() string {
	var b [12]byte
	rand.Read(b[:]) // it never fails
	return fmt.Sprintf("%s%x", TempPrefix, b)
}

// newTemp makes a temporary file and locks it.
func newTemp(dir int, mode fs.FileMode) (*os.File, string, error) {
	for {
		tmp := tempName()
		crashpoint.Before(crashpoint.FileCreate)
		f, err := createTemp(dir, tmp, mode)
		crashpoint.After(crashpoint.FileCreate)
		if err != nil {
			return nil, "", err
		}
		mine, err := lock(int(f.Fd()))
		if mine {
			return f, tmp, nil
		}
		// A sweeper was faster than the lock, and removes it.
		if err = errors.Join(err, f.Close(), ignoreMissing(unix.Unlinkat(dir, tmp, 0))); err != nil {
			return nil, "", err
		}
	}
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// lock says whether the file is the caller's alone. Where there are no locks
// nothing can be swept either.
func lock(fd int) (bool, error) {
	if err := flock(fd); err != nil {
		return !errors.Is(err, unix.EWOULDBLOCK), nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	return st.Nlink > 0, nil
}

func createTemp(dir int, name string, mode fs.FileMode) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(mode.Perm()))
	if err != nil {
		return nil, err
	}
	// The umask of this process must not decide.
	if err := unix.Fchmod(fd, uint32(mode.Perm())); err != nil {
		unix.Close(fd)
		return nil, errors.Join(err, ignoreMissing(unix.Unlinkat(dir, name, 0)))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// syncDir makes a rename or removal survive a power cut.
func syncDir(dir *os.File, name string) error {
	if err := crashpoint.Do(crashpoint.DirectorySync, func() error { return unix.Fsync(int(dir.Fd())) }); err != nil {
		return fmt.Errorf("sync directory of %s: %w", name, err)
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
