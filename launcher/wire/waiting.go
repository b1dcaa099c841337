// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// WaitingName is what a sentry or a gofer is called as long as it waits for a sandbox. Who
// reads the process list takes it for neither.
const WaitingName = "sandboxctl-waiting"

const (
	// waitingFDs is how many descriptors a waiting process has room for. They are taken from
	// its first instruction on: no file of its own has a number that its sandbox's will have.
	waitingFDs = 48
	// waitingRoom is how long the command line may become that a waiting process takes on.
	waitingRoom = 8 << 10
	// firstWaiting is the number of the socket, and of the first descriptor that is handed over.
	firstWaiting = 3
	// prepared is what a waiting process says when it has prepared itself.
	prepared = 'p'
	// taken is what it says when it is what it was told to become.
	taken = 't'
)

// WaitingArgv is the command line of a process that waits: its name, what it will be, the
// state directory, and room for the command line that it takes on.
func WaitingArgv(role, state string) []string {
	return []string{WaitingName, role, state, strings.Repeat(" ", waitingRoom)}
}

// WaitingFDs are the descriptors of a process that waits: the socket, and files that only
// take numbers.
func WaitingFDs(socket, null *os.File) ([]*os.File, error) {
	out := []*os.File{socket}
	for range waitingFDs - 1 {
		fd, err := dup(null)
		if err != nil {
			return out, err
		}
		out = append(out, fd)
	}
	return out, nil
}

func dup(f *os.File) (*os.File, error) {
	fd, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return nil, fmt.Errorf("duplicate descriptor: %w", errno)
	}
	return os.NewFile(fd, f.Name()), nil
}

// Fits says why a waiting process can't take on a command line with that many descriptors,
// "" if it can.
func Fits(args []string, fds int) string {
	n := 0
	for _, a := range args {
		n += len(a) + 1
	}
	switch {
	case n > waitingRoom:
		return fmt.Sprintf("its command line has %d bytes, a waiting process has room for %d", n, waitingRoom)
	case fds > waitingFDs:
		return fmt.Sprintf("it needs %d descriptors, a waiting process has room for %d", fds, waitingFDs)
	}
	return ""
}

// Hand gives a waiting process its command line, its stderr and the descriptors from 3 on,
// in one message: it has all of them or none.
func Hand(socket *os.File, args []string, stderr *os.File, files []*os.File) error {
	if why := Fits(args, len(files)); why != "" {
		return errors.New(why)
	}
	b := []byte(strings.Join(args, "\x00"))
	fds := []int{int(stderr.Fd())}
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	for {
		err := syscall.Sendmsg(int(socket.Fd()), b, syscall.UnixRights(fds...), nil, syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// ReadPrepared reads what a waiting process says when it has prepared itself.
func ReadPrepared(socket *os.File) error { return readWord(socket, prepared) }

// ReadTaken reads what it says when it is what Hand has told it to become. The end of the
// socket, which is an error, says that it has refused that.
func ReadTaken(socket *os.File) error { return readWord(socket, taken) }

func readWord(socket *os.File, want byte) error {
	var b [2]byte
	n, _, _, _, err := syscall.Recvmsg(int(socket.Fd()), b[:], nil, syscall.MSG_DONTWAIT)
	switch {
	case err != nil:
		return fmt.Errorf("read what a waiting process says: %w", err)
	case n == 0:
		return io.ErrUnexpectedEOF
	case n != 1 || b[0] != want:
		return fmt.Errorf("a waiting process says %q", b[:n])
	}
	return nil
}

// BeginWait keeps what a waiting process was started with from the processes that it starts
// itself. It comes first.
func BeginWait() {
	for fd := firstWaiting; fd < firstWaiting+waitingFDs; fd++ {
		syscall.CloseOnExec(fd)
	}
}

// Wait reports that this process is prepared, and returns the command line that it is to take
// on. Its descriptors are there then, and it is called as its command line says. io.EOF says
// that the daemon that had started it is gone, or does not need it.
//
// argv is its own command line, which is overwritten. The launcher waits for the call of
// accept, and starts another process in the place of this one if there is none.
func Wait(argv []string) (args []string, accept func() error, err error) {
	if _, err := syscall.Write(firstWaiting, []byte{prepared}); err != nil {
		return nil, nil, fmt.Errorf("report to the launcher: %w", err)
	}
	b := make([]byte, waitingRoom)
	oob := make([]byte, syscall.CmsgSpace((waitingFDs+1)*4))
	var n, oobn, flags int
	for {
		var err error
		if n, oobn, flags, _, err = syscall.Recvmsg(firstWaiting, b, oob, syscall.MSG_CMSG_CLOEXEC); err == nil {
			break
		} else if !errors.Is(err, syscall.EINTR) {
			return nil, nil, fmt.Errorf("wait for a request: %w", err)
		}
	}
	if n == 0 {
		return nil, nil, io.EOF
	}
	if flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
		return nil, nil, errors.New("the request was cut short")
	}
	fds, err := rights(oob[:oobn])
	if err != nil {
		return nil, nil, err
	}
	args = strings.Split(string(b[:n]), "\x00")
	if len(fds) == 0 || Fits(args, len(fds)-1) != "" {
		return nil, nil, errors.New("the request does not fit")
	}
	// Its number is that of a descriptor that was handed over.
	socket, _, errno := syscall.Syscall(syscall.SYS_FCNTL, firstWaiting, syscall.F_DUPFD_CLOEXEC, firstWaiting+waitingFDs)
	if errno != 0 {
		return nil, nil, fmt.Errorf("keep the socket: %w", errno)
	}
	if err := place(fds); err != nil {
		return nil, nil, err
	}
	Rename(argv, args)
	return args, func() error { return answer(int(socket)) }, nil
}

// answer says that this process is what it was told to become, and closes the socket.
func answer(socket int) error {
	err := syscall.Sendmsg(socket, []byte{taken}, nil, nil, syscall.MSG_NOSIGNAL)
	if err = errors.Join(err, syscall.Close(socket)); err != nil {
		return fmt.Errorf("answer the launcher: %w", err)
	}
	return nil
}

func rights(oob []byte) (fds []int, err error) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	for i := range msgs {
		more, rerr := syscall.ParseUnixRights(&msgs[i])
		fds, err = append(fds, more...), errors.Join(err, rerr)
	}
	if err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	return fds, nil
}

// place puts descriptors where a process that was started with them has them: the first one
// is stderr. Nothing is left of the socket and of what took the other numbers.
func place(fds []int) error {
	for i, fd := range fds {
		if fd < firstWaiting+waitingFDs {
			return fmt.Errorf("descriptor %d came as %d, which is taken", i, fd)
		}
	}
	for i, fd := range fds {
		if err := syscall.Dup3(fd, firstWaiting-1+i, 0); err != nil {
			return fmt.Errorf("place descriptor %d: %w", i, err)
		}
		if err := syscall.Close(fd); err != nil {
			return fmt.Errorf("close descriptor %d: %w", fd, err)
		}
	}
	for fd := firstWaiting - 1 + len(fds); fd < firstWaiting+waitingFDs; fd++ {
		if err := syscall.Close(fd); err != nil {
			return fmt.Errorf("close descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// Rename overwrites the command line of this process, which it was started with: the process
// list says of which sandbox it is, as of one that was started for it. The kernel has all
// arguments in a row, and Go's strings are where they are. What is not needed becomes zero. It
// can be done again.
func Rename(argv, args []string) {
	room := 0
	for _, a := range argv {
		room += len(a) + 1
	}
	first := unsafe.StringData(argv[0])
	last := argv[len(argv)-1]
	// One after the other, or they are not the kernel's.
	if end := uintptr(unsafe.Pointer(unsafe.StringData(last))) + uintptr(len(last)) + 1; end-uintptr(unsafe.Pointer(first)) != uintptr(room) {
		return
	}
	at := unsafe.Slice(first, room-1) // the kernel counts on the last zero
	clear(at)
	copy(at, strings.Join(args, "\x00"))
}
