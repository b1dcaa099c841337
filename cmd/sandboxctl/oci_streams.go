// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// reopen opens the file of a descriptor anew, so that a sandbox gets an open file
// of its own: flags such as O_NONBLOCK, and offsets, are not shared. It fails for
// what can't be opened twice, such as a socket, and for what a sandbox must not
// have at all, such as a terminal.
func reopen(f *os.File, access int) (*os.File, error) {
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

// leftStreams are streams for an application that this program does not wait for:
// our own pipes, opened anew. For all else a process is left behind that copies
// until the application has closed its own.
func (a *app) leftStreams() (out [3]*os.File, err error) {
	streams, err := a.streams()
	if err != nil {
		return out, err
	}
	l := &leftRelay{}
	for i, f := range streams {
		if i == 2 && sameFile(f, streams[1]) {
			out[2] = out[1] // so that what is written keeps its order
			break
		}
		if out[i], err = l.stream(f, i); err != nil {
			return out, errors.Join(err, l.close())
		}
	}
	return out, l.start(streams)
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
		if own, err := reopen(f, access); err == nil {
			return own, nil
		}
	}
	if i == 0 && isTerminal(f) {
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
func (l *leftRelay) start(streams [3]*os.File) error {
	cmd := exec.Command("/proc/self/exe", ociVerb, streamsVerb)
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

// streamsVerb is the verb of the process that copies.
const streamsVerb = "copy-streams"

// copyStreamsCommand copies between the streams that its arguments name and the
// descriptors from 3 on.
func (a *app) copyStreamsCommand() *cobra.Command {
	return &cobra.Command{
		Use: streamsVerb + " [0] [1] [2]", Hidden: true, Args: cobra.MaximumNArgs(3),
		Short:   "Copy the streams of a container (not for people)",
		Long:    "Copy the streams of a container. `create` leaves this process behind where its own streams must not be the container's.",
		Example: "  sandboxctl oci create --bundle /srv/bundle web >log",
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := newRelay()
			if err != nil {
				return err
			}
			var in chan struct{}
			for i, arg := range args {
				end := os.NewFile(uintptr(3+i), "stream "+arg)
				if end == nil {
					return usagef("no descriptor %d", 3+i)
				}
				unix.CloseOnExec(3 + i)
				switch arg {
				case "0":
					in = r.feed(end, a.stdin)
				case "1":
					r.drain(end, a.stdout)
				case "2":
					r.drain(end, a.stderr)
				default:
					return usagef("expected 0, 1 or 2, got %q", arg)
				}
			}
			r.copies.Wait()
			if in != nil {
				<-in
			}
			return r.finish()
		},
	}
}
