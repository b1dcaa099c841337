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
	"sandboxctl.dev/actual/fsys"
)

// TempPrefix begins the name of every temporary file. It begins with a dot, so
// that a watcher of manifests passes over it.
const TempPrefix = ".sandboxctl-tmp-"

// ErrNotRegular says that the name is taken by something that is not a regular
// file. Renaming over it would succeed, and lose whatever it is.
var ErrNotRegular = errors.New("not a regular file")

// In is a directory whose files are written and removed. The functions of this
// package do the same in a directory of the host.
type In struct{ fsys.Dir }

// Write replaces or creates the file name in the directory dir, an open
// directory that is not O_PATH. The name has no slash. When it returns nil the
// content survives a power cut.
func Write(dir *os.File, name string, data []byte, mode fs.FileMode) error {
	return In{fsys.Of(dir)}.Write(name, data, mode)
}

// Write is the function Write.
func (in In) Write(name string, data []byte, mode fs.FileMode) error {
	if err := in.checkTarget(name); err != nil {
		return err
	}
	return in.write(name, data, mode, 0, durable)
}

// WriteWhole is Write for content that a power cut may undo: it leaves the old content or
// the new, each of them whole.
func (in In) WriteWhole(name string, data []byte, mode fs.FileMode) error {
	if err := in.checkTarget(name); err != nil {
		return err
	}
	return in.write(name, data, mode, 0, whole)
}

// Publish is Write for content that need not survive a power cut, which may leave a
// part of it. Readers see the old content or the new all the same.
func (in In) Publish(name string, data []byte, mode fs.FileMode) error {
	if err := in.checkTarget(name); err != nil {
		return err
	}
	return in.write(name, data, mode, 0, passing)
}

// Create is Write for a name that must not exist yet: fs.ErrExist otherwise.
func Create(dir *os.File, name string, data []byte, mode fs.FileMode) error {
	if err := checkName(name); err != nil {
		return err
	}
	return In{fsys.Of(dir)}.write(name, data, mode, unix.RENAME_NOREPLACE, durable)
}

// survival is what a power cut may do to what was written.
type survival int

const (
	passing survival = iota // undo it, or leave a part of it
	whole                   // undo it
	durable                 // nothing
)

func (in In) write(name string, data []byte, mode fs.FileMode, renameFlags uint, s survival) (err error) {
	f, tmp, err := in.newTemp(mode)
	if err != nil {
		return fmt.Errorf("create temporary file for %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(in.Unlink(tmp)))
		}
	}()
	// Not before the rename: the lock ends with it. After Sync it can't fail.
	defer f.Close()
	crashpoint.Before(crashpoint.FileWrite)
	_, werr := f.Write(data)
	crashpoint.After(crashpoint.FileWrite)
	if werr == nil && s >= whole {
		werr = crashpoint.Do(crashpoint.FileSync, f.Sync)
	}
	if werr != nil {
		return fmt.Errorf("write %s: %w", name, werr)
	}
	err = crashpoint.Do(crashpoint.FileRename, func() error { return in.Rename(tmp, in.Dir, name, renameFlags) })
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if s < durable {
		return nil
	}
	return in.sync(name)
}

// Remove removes the file name durably. That it is not there is no error.
func Remove(dir *os.File, name string) error { return In{fsys.Of(dir)}.Remove(name) }

// Remove is the function Remove.
func (in In) Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := crashpoint.Do(crashpoint.FileRemove, func() error { return ignoreMissing(in.Unlink(name)) })
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return in.sync(name)
}

// SweepTemps removes what crashed writers left in dir. It may be called at any
// time: the file of a writer that is alive is left to it, and counted. So is,
// for a moment, that of a writer that was killed while it started a process:
// until that executes another program it holds all that its parent held.
func SweepTemps(dir *os.File) (busy int, err error) { return In{fsys.Of(dir)}.SweepTemps() }

// SweepTemps is the function SweepTemps.
func (in In) SweepTemps() (busy int, err error) {
	entries, err := in.Dir.Names(0)
	if err != nil {
		return 0, fmt.Errorf("list temporary files: %w", err)
	}
	var errs []error
	for _, n := range entries {
		if !strings.HasPrefix(n, TempPrefix) {
			continue
		}
		err := ignoreMissing(in.sweep(n))
		if errors.Is(err, unix.EWOULDBLOCK) {
			busy++
			continue
		}
		errs = append(errs, err)
	}
	return busy, errors.Join(errs...)
}

func (in In) sweep(name string) error {
	f, err := in.Open(name)
	switch {
	case errors.Is(err, unix.ELOOP):
		return in.Unlink(name) // a link is nobody's writing
	case err != nil:
		return fmt.Errorf("sweep %s: %w", name, err)
	}
	defer f.Close()
	if err := f.Lock(); err != nil {
		return fmt.Errorf("sweep %s: %w", name, err)
	}
	err = crashpoint.Do(crashpoint.TempSweep, func() error { return in.Unlink(name) })
	return err
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

// Names lists what is in the directory besides what crashed writers left there.
func (in In) Names() ([]string, error) {
	names, err := in.Dir.Names(0)
	return slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, TempPrefix) }), err
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("write file: %q is not a plain file name", name)
	}
	return nil
}

// checkTarget says why a file can't be written under a name.
func (in In) checkTarget(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	st, err := in.Stat(name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = ErrNotRegular
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return nil
}

func tempName() string {
	var b [12]byte
	rand.Read(b[:]) // it never fails
	return fmt.Sprintf("%s%x", TempPrefix, b)
}

// newTemp makes a temporary file and locks it.
func (in In) newTemp(mode fs.FileMode) (fsys.File, string, error) {
	for {
		tmp := tempName()
		crashpoint.Before(crashpoint.FileCreate)
		f, err := in.Dir.Create(tmp, mode)
		crashpoint.After(crashpoint.FileCreate)
		if err != nil {
			return nil, "", err
		}
		mine, err := lock(f)
		if mine {
			return f, tmp, nil
		}
		// A sweeper was faster than the lock, and removes it.
		if err = errors.Join(err, f.Close(), ignoreMissing(in.Unlink(tmp))); err != nil {
			return nil, "", err
		}
	}
}

// lock says whether the file is the caller's alone. Where there are no locks
// nothing can be swept either.
func lock(f fsys.File) (bool, error) {
	if err := f.Lock(); err != nil {
		return !errors.Is(err, unix.EWOULDBLOCK), nil
	}
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	return st.Nlink > 0, nil
}

// sync makes a rename or removal survive a power cut.
func (in In) sync(name string) error {
	err := crashpoint.Do(crashpoint.DirectorySync, in.Sync)
	if err != nil {
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
