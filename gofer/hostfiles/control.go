// SPDX-License-Identifier: Apache-2.0

package hostfiles

import (
	"errors"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/lisafs"
)

// control is a located file.
type control struct {
	lisafs.ControlFD
	conn *connectionImpl
	// fd is opened with O_PATH.
	fd int
}

var _ lisafs.ControlFDImpl = (*control)(nil)

// newControl takes fd and a reference of node over.
func newControl(conn *lisafs.Connection, node *lisafs.Node, fd int, stat lisafs.Statx) *control {
	f := &control{conn: conn.Impl().(*connectionImpl), fd: fd}
	f.Init(conn, node, linux.FileMode(stat.Mode), f)
	return f
}

// child returns the control FD of a file that was located as name in f.
func (f *control) child(name string, fd int, stat lisafs.Statx) *control {
	parent := f.Node()
	var node *lisafs.Node
	parent.WithChildrenMu(func() {
		if node = parent.LookupChildLocked(name); node != nil {
			node.IncRef()
			return
		}
		node = &lisafs.Node{}
		node.InitLocked(name, parent)
	})
	return newControl(f.Conn(), node, fd, stat)
}

func (f *control) FD() *lisafs.ControlFD { return &f.ControlFD }

func (f *control) Close() { unix.Close(f.fd) }

// Renamed implements lisafs.ControlFDImpl. A descriptor has no name.
func (f *control) Renamed() {}

func (f *control) Stat() (lisafs.Statx, error) { return f.conn.stat(f.fd, "") }

func (f *control) Walk(name string) (*lisafs.ControlFD, lisafs.Statx, error) {
	fd, stat, err := f.conn.locate(f.fd, name)
	if err != nil {
		return nil, stat, err
	}
	return &f.child(name, fd, stat).ControlFD, stat, nil
}

// WalkStat implements lisafs.ControlFDImpl. Where the path ends early, so does
// what is told of it.
func (f *control) WalkStat(path lisafs.StringArray, record func(lisafs.Statx)) error {
	if len(path) > 0 && path[0] == "" {
		stat, err := f.Stat()
		if err != nil {
			return err
		}
		record(stat)
		path = path[1:]
	}
	dir := f.fd
	defer func() {
		if dir != f.fd {
			unix.Close(dir)
		}
	}()
	for i, name := range path {
		var (
			next = -1
			stat lisafs.Statx
			err  error
		)
		if i == len(path)-1 {
			// Nothing is looked for below the last one: no need to open it.
			stat, err = f.conn.stat(dir, name)
		} else {
			next, stat, err = f.conn.locate(dir, name)
		}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return err
		}
		record(stat)
		if dir != f.fd {
			unix.Close(dir)
		}
		if dir = next; dir < 0 {
			dir = f.fd
			break
		}
		if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
			break
		}
	}
	return nil
}

func (f *control) StatFS() (lisafs.StatFS, error) {
	var s unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(f.fd, &s) }); err != nil {
		return lisafs.StatFS{}, err
	}
	return lisafs.StatFS{
		Type: uint64(s.Type), BlockSize: s.Bsize, NameLength: uint64(s.Namelen),
		Blocks: s.Blocks, BlocksFree: s.Bfree, BlocksAvailable: s.Bavail, Files: s.Files, FilesFree: s.Ffree,
	}, nil
}

func (f *control) Readlink(buffer func(uint32) []byte) (uint16, error) {
	// The target of a link is shorter than this, on every filesystem.
	n, err := unix.Readlinkat(f.fd, "", buffer(unix.PathMax))
	if err != nil {
		return 0, err
	}
	return uint16(n), nil
}

// Open implements lisafs.ControlFDImpl. What can't be opened is answered with
// EPERM, which is what the sentry says itself of host FIFOs and sockets.
func (f *control) Open(flags uint32) (*lisafs.OpenFD, int, error) {
	flags &= unix.O_ACCMODE | unix.O_TRUNC
	switch {
	case !f.IsDir() && !f.IsRegular():
		return nil, -1, unix.EPERM
	case flags&unix.O_ACCMODE == unix.O_ACCMODE:
		return nil, -1, unix.EINVAL
	}
	fd, err := reopen(f.fd, int(flags))
	if err != nil {
		return nil, -1, err
	}
	o, err := f.newOpen(fd)
	if err != nil {
		unix.Close(fd)
		return nil, -1, err
	}
	donated := -1
	// The sentry maps regular files, and reads them without asking. With a
	// descriptor of a directory it could look for files by itself: only a client
	// that does that anyway is given one.
	if f.IsRegular() || f.conn.config.DonateMountPointFD {
		if donated, err = unix.Dup(fd); err != nil {
			unix.Close(fd)
			return nil, -1, err
		}
	}
	o.Init(&f.ControlFD, flags, o)
	return &o.OpenFD, donated, nil
}

// Connect implements lisafs.ControlFDImpl. Sockets of the host are not for a
// sandbox, which sees one that nobody listens on.
func (f *control) Connect(uint32) (int, error) { return -1, unix.ECONNREFUSED }

func (f *control) ConnectWithCreds(uint32, lisafs.UID, lisafs.GID) (int, error) {
	return -1, unix.ECONNREFUSED
}

// BindAt implements lisafs.ControlFDImpl. The sentry takes EPERM as: keep a socket
// in memory under this name.
func (f *control) BindAt(string, uint32, linux.FileMode, lisafs.UID, lisafs.GID) (*lisafs.ControlFD, lisafs.Statx, *lisafs.BoundSocketFD, int, error) {
	return nil, lisafs.Statx{}, nil, -1, unix.EPERM
}
