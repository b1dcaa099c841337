// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
)

// Reopen opens the file of a descriptor anew, so that a sandbox gets an open file
// of its own: flags such as O_NONBLOCK, and offsets, are not shared. It fails for
// what can't be opened twice, such as a socket, and for what a sandbox must not
// have at all, such as a terminal.
func Reopen(f *os.File, access int) (*os.File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	switch t := info.Mode().Type(); {
	case t == os.ModeNamedPipe, t == 0, isHarmlessDevice(info):
	default:
		return nil, fmt.Errorf("%s is a %s, which would have to be shared with the sandbox", f.Name(), fileKind(t))
	}
	// A pipe is not waited for: it has an other end or it has not.
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), access|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s anew: %w", f.Name(), err)
	}
	// The application's descriptor has the flags of this one: with O_NONBLOCK it
	// would read EAGAIN where nothing has been written yet.
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s anew: %w", f.Name(), err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func fileKind(t os.FileMode) string {
	switch {
	case t == os.ModeSocket:
		return "socket"
	case t == os.ModeDir:
		return "directory"
	case t&os.ModeDevice != 0:
		return "device"
	}
	return "file of an unknown type"
}

// isHarmlessDevice says whether a file is null, zero, full, random or urandom.
func isHarmlessDevice(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Type() != os.ModeDevice|os.ModeCharDevice || unix.Major(st.Rdev) != 1 {
		return false
	}
	switch unix.Minor(st.Rdev) {
	case 3, 5, 7, 8, 9:
		return true
	}
	return false
}

// CopyVerb is the verb of the OCI runtime that calls Copy, with the streams that are
// to be copied as its arguments. It copies between them and the descriptors from 3 on.
const CopyVerb = "copy-streams"

// Left are streams for an application that this program does not wait for: our own
// pipes, opened anew. For all else a process is left behind that copies until the
// application has closed its own: this program, executed as `verb... copy-streams`.
func (streams Streams) Left(verb ...string) (out [3]*os.File, err error) {
	ours, err := streams.Files()
	if err != nil {
		return out, err
	}
	l := &leftRelay{}
	for i, f := range ours {
		if i == 2 && sameFile(f, ours[1]) {
			out[2] = out[1] // so that what is written keeps its order
			break
		}
		if out[i], err = l.stream(f, i); err != nil {
			return out, errors.Join(err, l.close())
		}
	}
	return out, l.start(ours, verb)
}

// Files are the streams as files, which those of this program are.
func (streams Streams) Files() (out [3]*os.File, err error) {
	for i, s := range []any{streams.In, streams.Out, streams.Err} {
		f, ok := s.(*os.File)
		if !ok {
			return out, fmt.Errorf("stream %d is not a file", i)
		}
		out[i] = f
	}
	return out, nil
}

// leftRelay is the process that copies. It has the streams of this one.
type leftRelay struct{ ends [3]*os.File }

func (l *leftRelay) stream(f *os.File, i int) (*os.File, error) {
	access := unix.O_WRONLY
	if i == 0 {
		access = unix.O_RDONLY
	}
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
		// A regular file has an offset, which is to move as that of its owner.
		if own, err := Reopen(f, access); err == nil {
			return own, nil
		}
	}
	if i == 0 && show.IsTerminal(f) {
		// A process in the background would take what is typed for others.
		return os.Open(os.DevNull)
	}
	pr, pw, err := blockingPipe()
	if err != nil {
		return nil, err
	}
	if i == 0 {
		l.ends[i] = pw
		return pr, nil
	}
	l.ends[i] = pr
	return pw, nil
}

func (l *leftRelay) close() error {
	var errs []error
	for _, f := range l.ends {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// start starts the process if it has anything to copy.
func (l *leftRelay) start(streams [3]*os.File, verb []string) error {
	cmd := exec.Command("/proc/self/exe", append(verb, CopyVerb)...)
	cmd.Args[0] = "sandboxctl"
	// Not those that it does not copy: their other ends are to see when they end.
	own := []func(){func() { cmd.Stdin = streams[0] }, func() { cmd.Stdout = streams[1] }, func() { cmd.Stderr = streams[2] }}
	for i, f := range l.ends {
		if f != nil {
			own[i]()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
			cmd.Args = append(cmd.Args, strconv.Itoa(i))
		}
	}
	if cmd.ExtraFiles == nil {
		return nil
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err := cmd.Start()
	if err = errors.Join(err, l.close()); err != nil {
		return fmt.Errorf("start copying process: %w", err)
	}
	return cmd.Process.Release()
}

// Copy copies between the streams that are named, 0 to 2, and the descriptors from 3
// on, until all of them have ended.
func (streams Streams) Copy(names []string) error {
	r, err := newRelay()
	if err != nil {
		return err
	}
	var in chan struct{}
	for i, name := range names {
		end := os.NewFile(uintptr(3+i), "stream "+name)
		if end == nil {
			return exit.Usagef("no descriptor %d", 3+i)
		}
		unix.CloseOnExec(3 + i)
		switch name {
		case "0":
			in = r.feed(end, streams.In)
		case "1":
			r.drain(end, streams.Out)
		case "2":
			r.drain(end, streams.Err)
		default:
			return exit.Usagef("expected 0, 1 or 2, got %q", name)
		}
	}
	r.copies.Wait()
	if in != nil {
		<-in
	}
	return r.finish()
}
