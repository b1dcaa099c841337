// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/rounds"
	"sandboxctl.dev/actual/untrusted"
)

// kernelDir is a directory of the host.
type kernelDir struct {
	*os.File

	syncs *rounds.Rounds // nil: each is a call of its own
}

// Of returns the calls on an open directory that is not O_PATH. It stays the
// caller's until the Dir is closed.
func Of(dir *os.File) Dir { return kernelDir{File: dir} }

// ShareSyncs returns the directory with syncs that its users share. What many of them
// rename at once is forced to disk together. A directory that is not of the host is
// returned as it is.
func ShareSyncs(d Dir) Dir {
	k, ok := d.(kernelDir)
	if !ok {
		return d
	}
	k.syncs = rounds.Of(kernelDir{File: k.File}.Sync)
	return k
}

// OSFile returns the directory that Of was given, nil of a simulated one.
func OSFile(d Dir) *os.File {
	k, _ := d.(kernelDir)
	return k.File
}

func (d kernelDir) fd() int { return int(d.Fd()) }

// Open implements Dir.
func (d kernelDir) Open(name string) (File, error) {
	fd, err := beneath(func() (dirfd.Fd, error) {
		return dirfd.OpenFd(d.fd(), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, noLinks)
	})
	if err != nil {
		return nil, err
	}
	return kernelFile{fd}, nil
}

// noLinks resolves a path below a directory, and follows nothing.
const noLinks = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// Create implements Dir.
func (d kernelDir) Create(name string, mode fs.FileMode) (File, error) {
	fd, err := unix.Openat(d.fd(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(mode.Perm()))
	if err != nil {
		return nil, err
	}
	// The umask of this process must not decide.
	if err := unix.Fchmod(fd, uint32(mode.Perm())); err != nil {
		unix.Close(fd)
		if uerr := d.Unlink(name); uerr != nil && !errors.Is(uerr, unix.ENOENT) {
			err = errors.Join(err, uerr)
		}
		return nil, err
	}
	return kernelFile{dirfd.Fd(fd)}, nil
}

// openTries bounds how often beneath tries again.
const openTries = 100

// beneath opens a path, again if it was moved out of the directory, into the trash,
// while the kernel looked it up. The next look finds that there is none.
func beneath[T any](open func() (T, error)) (T, error) {
	for try := 0; ; try++ {
		f, err := open()
		if try == openTries || !errors.Is(err, unix.EXDEV) {
			return f, err
		}
	}
}

// OpenDir implements Dir.
func (d kernelDir) OpenDir(name string) (Dir, error) {
	f, err := beneath(func() (*os.File, error) {
		return dirfd.Open(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY, noLinks)
	})
	if err != nil {
		return nil, err
	}
	return kernelDir{File: f}, nil
}

// Mkdir implements Dir.
func (d kernelDir) Mkdir(name string, mode fs.FileMode) error {
	return unix.Mkdirat(d.fd(), name, uint32(mode.Perm()))
}

// Rename implements Dir.
func (d kernelDir) Rename(name string, to Dir, as string, flags uint) error {
	k, ok := to.(kernelDir)
	if !ok {
		return unix.EXDEV
	}
	return unix.Renameat2(d.fd(), name, k.fd(), as, flags)
}

// Unlink implements Dir.
func (d kernelDir) Unlink(name string) error { return unix.Unlinkat(d.fd(), name, 0) }

// Remover implements Dir.
func (d kernelDir) Remover(budget int) Remover { return untrusted.NewRemover(d.fd(), budget) }

// Names implements Dir.
func (d kernelDir) Names(limit int) ([]string, error) {
	if limit > 0 {
		return untrusted.List(d.fd(), limit)
	}
	// A descriptor of its own: the offset of d is the caller's.
	fd, err := unix.Openat(d.fd(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), d.Name())
	defer f.Close()
	return f.Readdirnames(-1)
}

// Stat implements Dir.
func (d kernelDir) Stat(name string) (st unix.Stat_t, err error) {
	err = unix.Fstatat(d.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// Self implements Dir.
func (d kernelDir) Self() (st unix.Stat_t, err error) {
	err = unix.Fstat(d.fd(), &st)
	return st, err
}

// StatPath implements Dir.
func (d kernelDir) StatPath(path string) (st unix.Stat_t, err error) {
	err = unix.Stat(path, &st)
	return st, err
}

// Statfs implements Dir.
func (d kernelDir) Statfs() (st unix.Statfs_t, err error) {
	err = retry(func() error { return unix.Fstatfs(d.fd(), &st) })
	return st, err
}

// Sync implements Dir.
func (d kernelDir) Sync() error {
	if d.syncs != nil {
		return d.syncs.Do()
	}
	return unix.Fsync(d.fd())
}

// lockEvery is how often Lock looks whether it is free.
const lockEvery = 10 * time.Millisecond

// Lock implements Dir.
func (d kernelDir) Lock(patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; <-time.After(lockEvery) {
		err := lock(d.fd())
		if !errors.Is(err, unix.EWOULDBLOCK) || !time.Now().Before(deadline) {
			return err
		}
	}
}

// kernelFile is a file of the host.
type kernelFile struct{ dirfd.Fd }

// Write implements File.
func (f kernelFile) Write(b []byte) (int, error) {
	for done := 0; ; {
		n, err := unix.Write(int(f.Fd), b[done:])
		switch done += max(n, 0); {
		case err != nil && !errors.Is(err, unix.EINTR):
			return done, os.NewSyscallError("write", err)
		case done == len(b):
			return done, nil
		}
	}
}

// Stat implements File.
func (f kernelFile) Stat() (st unix.Stat_t, err error) {
	err = unix.Fstat(int(f.Fd), &st)
	return st, err
}

// Sync implements File.
func (f kernelFile) Sync() error {
	return os.NewSyscallError("fsync", retry(func() error { return unix.Fsync(int(f.Fd)) }))
}

// Lock implements File.
func (f kernelFile) Lock() error { return lock(int(f.Fd)) }

func lock(fd int) error {
	return retry(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
}

func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
