// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// FirstDonated is the number of the first donated descriptor: 0 to 2 are
// stdio.
const FirstDonated = 3

// Donation owns the descriptors one child will inherit, in order, and closes
// all of them, whatever happens. A descriptor forgotten here would be a leak
// in the daemon; one inherited by accident a hole in the jail.
type Donation struct {
	files []*os.File
}

// Give takes over f and returns its number in the child.
func (d *Donation) Give(f *os.File) int {
	d.files = append(d.files, f)
	return FirstDonated + len(d.files) - 1
}

// GiveFD is give for a raw descriptor.
func (d *Donation) GiveFD(fd int, name string) int {
	return d.Give(os.NewFile(uintptr(fd), name))
}

// Descriptors are the files given, in order, still the donation's.
func (d *Donation) Descriptors() []*os.File { return d.files }

// Close closes every descriptor; the child has its own copies.
func (d *Donation) Close() error {
	var errs []error
	for _, f := range d.files {
		errs = append(errs, f.Close())
	}
	d.files = nil
	return errors.Join(errs...)
}

// SocketPair returns the two ends of a stream socket pair.
func SocketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket pair"), os.NewFile(uintptr(fds[1]), "socket pair"), nil
}

// Pipe returns a pipe whose ends are close-on-exec and blocking: whether a
// descriptor blocks is a property of the open file and would be shared with
// the child.
func Pipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("create pipe: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// MemFile returns an anonymous file with the content, sealed so that neither
// side can change what the other has checked.
func MemFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // MFD_NOEXEC_SEAL is of Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("create memory file %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		return nil, errors.Join(fmt.Errorf("write memory file %s: %w", name, err), f.Close())
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		return nil, errors.Join(fmt.Errorf("seal memory file %s: %w", name, err), f.Close())
	}
	if _, err := f.Seek(0, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("rewind memory file %s: %w", name, err), f.Close())
	}
	return f, nil
}

// FDPath is a path under which this process, or a child that inherits no other file
// there, reaches what the descriptor refers to.
func FDPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
