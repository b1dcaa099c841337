// SPDX-License-Identifier: Apache-2.0

package trustedfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// UntrustedError says that somebody else could change what a path leads to, as
// sshd's StrictModes has it for the files that say who may log in.
type UntrustedError struct {
	Path string // the file or directory that others own or may write
	Why  string // what is wrong with it, and what to do
}

func (e *UntrustedError) Error() string { return e.Path + " " + e.Why }

// Open opens the regular file or directory that an absolute path leads
// to, to read it. It returns an UntrustedError if anybody but root and the user
// of this program owns or may write it, a directory on the way to it, or a link
// on the way: that user could put something else in its place. A directory that
// anybody may write is all right on the way if it is sticky, as /tmp: only the
// owner of an entry can rename it there.
//
// Each component is opened once, below the one before, and judged by its
// descriptor: what is returned is what was judged.
func Open(p string) (*os.File, error) {
	if !path.IsAbs(p) {
		return nil, fmt.Errorf("open %s: expected an absolute path", p)
	}
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	w := &walk{dirs: []*os.File{root}}
	defer w.close()
	if err := w.judge(root, false); err != nil {
		return nil, err
	}
	return w.open(p)
}

// OpenBelow is Open for a path below a directory that is trusted,
// which stays open. A link that leads out of it is EXDEV.
func OpenBelow(dir *os.File, p string) (*os.File, error) {
	w := &walk{dirs: []*os.File{dir}, beneath: true}
	defer w.close()
	return w.open(p)
}

// ErrDangling says that there is something, a link; that it leads nowhere is not
// the same as nothing.
var ErrDangling = errors.New("a link on the way leads to nothing")

// maxLinks bounds the links of one path, as the kernel does.
const maxLinks = 40

// walk resolves one path by hand: the kernel judges no owners.
type walk struct {
	dirs    []*os.File // from where it began to where it is, without links
	beneath bool       // it must not leave the first
	links   int
}

func (w *walk) close() {
	if w.beneath {
		w.dirs = w.dirs[1:] // the first is the caller's
	}
	for _, d := range w.dirs {
		d.Close()
	}
}

func (w *walk) open(p string) (*os.File, error) {
	todo := strings.Split(p, "/")
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if err := w.up(); err != nil {
				return nil, &fs.PathError{Op: "open", Path: p, Err: err}
			}
			continue
		}
		f, st, err := w.step(name)
		if err != nil {
			if w.links > 0 && errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: %w", ErrDangling, err)
			}
			return nil, &fs.PathError{Op: "open", Path: p, Err: err}
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := w.follow(f, st)
			f.Close()
			if err != nil {
				return nil, err
			}
			todo = append(strings.Split(target, "/"), todo...)
		case unix.S_IFDIR:
			w.dirs = append(w.dirs, f)
			if last := strings.Join(todo, "") == ""; !last {
				if err := w.judge(f, false); err != nil {
					return nil, err
				}
			}
		default:
			defer f.Close()
			if len(todo) > 0 {
				return nil, &fs.PathError{Op: "open", Path: p, Err: unix.ENOTDIR}
			}
			return w.finish(f)
		}
	}
	return w.finish(w.dirs[len(w.dirs)-1])
}

// step opens one component, which may be a link, and does not follow it.
func (w *walk) step(name string) (*os.File, *unix.Stat_t, error) {
	at := w.dirs[len(w.dirs)-1]
	fd, err := unix.Openat(int(at.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), path.Join(at.Name(), name))
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, &st, nil
}

func (w *walk) up() error {
	n := len(w.dirs)
	switch {
	case n > 1:
		w.dirs[n-1].Close()
		w.dirs = w.dirs[:n-1]
	case w.beneath:
		return unix.EXDEV
	}
	return nil
}

// follow returns where a link leads. Its mode says nothing: what counts is who
// owns it, and the directory it is in.
func (w *walk) follow(f *os.File, st *unix.Stat_t) (string, error) {
	if !trustedOwner(st) {
		return "", &UntrustedError{f.Name(), fmt.Sprintf("is a symbolic link that belongs to user %d; expected root: create it again as root", st.Uid)}
	}
	if w.links++; w.links > maxLinks {
		return "", &fs.PathError{Op: "open", Path: f.Name(), Err: unix.ELOOP}
	}
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", b)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: f.Name(), Err: err}
	}
	target := string(b[:n])
	if path.IsAbs(target) {
		if w.beneath {
			return "", &fs.PathError{Op: "open", Path: f.Name(), Err: unix.EXDEV}
		}
		for len(w.dirs) > 1 {
			if err := w.up(); err != nil {
				return "", err
			}
		}
	}
	return target, nil
}

// finish judges what the path leads to and opens that very file to read.
func (w *walk) finish(f *os.File) (*os.File, error) {
	if err := w.judge(f, true); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	// A fifo or a device is not opened for real: that could block, or act.
	if m := st.Mode & unix.S_IFMT; m != unix.S_IFREG && m != unix.S_IFDIR {
		return nil, &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("expected a regular file or a directory")}
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// judge judges what is open.
func (w *walk) judge(f *os.File, last bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return Judge(f.Name(), &st, last)
}

// Judge says who else could change a file or directory, as Open does. last says that
// it is what a path leads to, and not on the way there.
func Judge(name string, st *unix.Stat_t, last bool) error {
	switch {
	case !trustedOwner(st):
		return &UntrustedError{name, fmt.Sprintf("belongs to user %d, who could decide what runs here as root; give it to root with chown", st.Uid)}
	case st.Mode&0o022 == 0:
		return nil
	case !last && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0:
		// Its entries are judged by their owner.
		return nil
	}
	return &UntrustedError{name, fmt.Sprintf("can be written by others (mode %04o), who could decide what runs here as root; remove that with chmod go-w", st.Mode&0o7777)}
}

// trustedOwner: root, and who runs this program, have the power anyway.
func trustedOwner(st *unix.Stat_t) bool { return st.Uid == 0 || int(st.Uid) == os.Geteuid() }
