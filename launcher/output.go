// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/logs"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// stdio are the application's descriptors: 0 to 2, and those from 3 on.
type stdio struct {
	in, out, err *os.File
	more         []*os.File
}

// give returns the numbers that they have in the sentry.
func (s *stdio) give(d *proc.Donation) (fds []int) {
	for _, f := range append([]*os.File{s.in, s.out, s.err}, s.more...) {
		fds = append(fds, d.Give(f))
	}
	return fds
}

// openOutput makes the pipes or the terminal of the application's output, unless
// it has streams of its own, and the pipe of the sentry's own, and gives their read ends and the log
// directory to the gofer.
func (l *Launcher) openOutput(la *launch, toGofer *proc.Donation) (_ *gofer.Logs, _ *stdio, sentryErr *os.File, err error) {
	out := &gofer.Logs{AppName: logs.AppFile, SentryName: logs.SentryFile, MaxBytes: setup.Limit(l.opts.LogMaxBytes, la.st.LogSize), StdoutFD: -1, StderrFD: -1}
	disk, err := l.store.Disk()
	if err != nil {
		return nil, nil, nil, err
	}
	out.LeastFree = disk.LeastFreeForLogs()
	tree, err := logs.Clone(la.logs)
	if err != nil {
		return nil, nil, nil, err
	}
	out.DirFD = toGofer.Give(tree)

	var writers []*os.File
	defer func() {
		if err != nil {
			for _, w := range writers {
				w.Close()
			}
		}
	}()
	pipes := []*int{&out.SentryFD, &out.StdoutFD, &out.StderrFD}
	terminal := la.streams == nil && la.st.Spec.Process.Terminal
	if la.streams != nil || terminal {
		pipes = pipes[:1]
	}
	for _, fd := range pipes {
		r, w, err := proc.Pipe()
		if err != nil {
			return nil, nil, nil, err
		}
		writers = append(writers, w)
		*fd = toGofer.Give(r)
	}
	if la.streams != nil {
		s, err := la.streams.dup()
		if err != nil {
			return nil, nil, nil, err
		}
		return out, s, writers[0], nil
	}
	if terminal {
		fd, s, err := ownTerminal(toGofer)
		if err != nil {
			return nil, nil, nil, err
		}
		out.StdoutFD = fd
		return out, s, writers[0], nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	return out, &stdio{in: null, out: writers[1], err: writers[2]}, writers[0], nil
}

// dup copies the streams, for a donation that closes what it is given.
func (s *streams) dup() (*stdio, error) {
	var copies []*os.File
	for i, f := range append(s.files[:], s.preserved...) {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, c := range copies {
				c.Close()
			}
			return nil, fmt.Errorf("duplicate descriptor %d: %w", i, err)
		}
		copies = append(copies, os.NewFile(uintptr(fd), f.Name()))
	}
	return &stdio{in: copies[0], out: copies[1], err: copies[2], more: copies[3:]}, nil
}
