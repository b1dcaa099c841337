// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// backlog is how many connections wait to be accepted.
const backlog = 128

// socket is the one that clients connect with.
type socket struct {
	path string
	dir  *os.File // where it is
	name string   // in it
	gid  int      // whose members may connect, -1 for none
	*net.UnixListener
}

// listen makes the socket, for root and the members of a group, -1 for none. It has its name when
// it is ready: a member of the group is never turned away because a daemon has just started. One
// that a killed daemon has left is replaced, one on which somebody answers is not.
func listen(path string, gid int) (*socket, error) {
	if path == filepath.Clean(path) && filepath.Dir(path) == runDir {
		if err := os.Mkdir(runDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make the directory of the socket of clients: %w", err)
		}
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open the directory of the socket of clients: %w", err)
	}
	s := &socket{path: path, dir: dir, name: filepath.Base(path), gid: -1}
	if err := s.listen(gid); err != nil {
		dir.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return s, nil
}

// runDir is the directory of the socket of a host, which a boot empties.
const runDir = "/run/sandboxctl"

func (s *socket) listen(gid int) error {
	// Who can write there could put another socket in its place, and be told what clients run.
	var st unix.Stat_t
	if err := unix.Fstat(int(s.dir.Fd()), &st); err != nil {
		return err
	}
	if st.Uid != uint32(os.Geteuid()) || st.Mode&0o022 != 0 {
		return fmt.Errorf("others than root may write the directory %s (mode %04o, owner %d); chown root and chmod go-w help", filepath.Dir(s.path), st.Mode&0o7777, st.Uid)
	}
	if err := s.mayReplace(); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), s.path)
	defer f.Close() // the listener has its own
	next := s.name + ".new"
	if err := s.unlink(next); err != nil {
		return err
	}
	// The umask of the daemon keeps others from writing, which is connecting.
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: s.at(next)}); err != nil {
		return err
	}
	err = errors.Join(s.give(next, gid), unix.Listen(fd, backlog))
	if err == nil {
		err = unix.Renameat(int(s.dir.Fd()), next, int(s.dir.Fd()), s.name)
	}
	if err != nil {
		return errors.Join(err, s.unlink(next))
	}
	l, err := net.FileListener(f)
	if err != nil {
		return errors.Join(err, s.unlink(s.name))
	}
	s.UnixListener, s.gid = l.(*net.UnixListener), gid
	s.SetUnlinkOnClose(false) // it knows a path of another time
	return nil
}

// at is a path of a name in the directory: neither the length of its path nor a link on the way to
// it counts.
func (s *socket) at(name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(s.dir.Fd())) + "/" + name
}

func (s *socket) unlink(name string) error {
	if err := unix.Unlinkat(int(s.dir.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the socket %s: %w", name, err)
	}
	return nil
}

// mayReplace says whether there is nothing but what a killed daemon has left.
func (s *socket) mayReplace() error {
	var st unix.Stat_t
	switch err := unix.Fstatat(int(s.dir.Fd()), s.name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return errors.New("there is something else, which is no socket; remove it, or name another path with --client-socket")
	case answers(s.at(s.name)):
		return errors.New("another daemon listens there; name another path with --client-socket")
	}
	return nil
}

// answers says whether somebody listens on a socket, or may.
func answers(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return !errors.Is(unix.Connect(fd, &unix.SockaddrUnix{Name: path}), unix.ECONNREFUSED)
}

// allow lets the members of a group connect, -1 for none. Who has connected is judged once more,
// by the groups that the kernel knows: this keeps all others from trying.
func (s *socket) allow(gid int) error {
	if gid == s.gid {
		return nil
	}
	if err := s.give(s.name, gid); err != nil {
		return err
	}
	s.gid = gid
	return nil
}

// give gives a socket to root and a group. In between it is nobody else's.
func (s *socket) give(name string, gid int) error {
	dir, mode := int(s.dir.Fd()), uint32(0o600)
	if gid >= 0 {
		mode = 0o660
	}
	for _, step := range []func() error{
		func() error { return unix.Fchmodat(dir, name, 0o600, 0) },
		func() error { return unix.Fchownat(dir, name, -1, max(gid, 0), unix.AT_SYMLINK_NOFOLLOW) },
		func() error { return unix.Fchmodat(dir, name, mode, 0) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("give the socket of clients to group %d: %w", gid, err)
		}
	}
	return nil
}

// close ends listening, and removes the socket: a client is told at once that nobody is there.
func (s *socket) close() error {
	_ = s.UnixListener.Close() // a second time, perhaps
	return errors.Join(s.unlink(s.name), s.dir.Close())
}
