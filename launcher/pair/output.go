// SPDX-License-Identifier: Apache-2.0

package pair

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

// Streams are descriptors for an application that are not ours to read: 0 to 2, and
// those from 3 on. They stay the caller's.
type Streams struct {
	Files     [3]*os.File
	Preserved []*os.File
}

// output is where the application and the sentry write to.
type output struct {
	logs      gofer.Logs
	stdio     *stdio
	sentryErr *os.File
}

// openOutput makes the pipes or the terminal of the application's output, unless it
// has streams of its own, and the pipe of the sentry's own, which a warm one has. It gives
// their read ends and the log directory to the gofer.
func openOutput(la *Launch, warm *Warm, toGofer *proc.Donation) (_ *output, err error) {
	tree, err := logs.Clone(la.Logs)
	if err != nil {
		return nil, err
	}
	out := &output{logs: gofer.Logs{
		DirFD: toGofer.Give(tree), AppName: logs.AppFile, SentryName: logs.SentryFile, StdoutFD: -1, StderrFD: -1,
		MaxBytes: setup.Limit(la.LogMaxBytes, la.Setup.LogSize), LeastFree: la.LeastFree,
	}}
	writers := make([]*os.File, 1, 3) // closing the first one is nothing as long as there is none
	defer func() {
		if err != nil {
			for _, w := range writers {
				w.Close()
			}
		}
	}()
	if warm != nil {
		out.logs.SentryFD = toGofer.Give(warm.takeStderr())
	} else {
		r, w, err := proc.Pipe()
		if err != nil {
			return nil, err
		}
		writers[0], out.logs.SentryFD = w, toGofer.Give(r)
	}
	pipes := []*int{&out.logs.StdoutFD, &out.logs.StderrFD}
	terminal := la.Streams == nil && la.Setup.App().Spec.Process.Terminal
	if la.Streams != nil || terminal {
		pipes = nil
	}
	for _, fd := range pipes {
		r, w, err := proc.Pipe()
		if err != nil {
			return nil, err
		}
		writers = append(writers, w)
		*fd = toGofer.Give(r)
	}
	out.sentryErr = writers[0]
	switch {
	case la.Streams != nil:
		out.stdio, err = la.Streams.dup()
	case terminal:
		out.logs.StdoutFD, out.stdio, err = ownTerminal(toGofer)
	default:
		var null *os.File
		if null, err = os.OpenFile(os.DevNull, os.O_RDONLY, 0); err != nil {
			return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
		}
		out.stdio = &stdio{in: null, out: writers[1], err: writers[2]}
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// dup copies the streams, for a donation that closes what it is given.
func (s *Streams) dup() (*stdio, error) {
	var copies []*os.File
	for i, f := range append(s.Files[:], s.Preserved...) {
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
