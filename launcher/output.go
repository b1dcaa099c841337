// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/gofer"
)

// keepAttempts is how many attempts have their logs kept: the current one and
// the one before, for `logs --previous`.
const keepAttempts = 2

// prepareLogs makes the log directory and removes the logs of attempts before
// the last.
func prepareLogs(dir int, attempt int64, maps *idMaps) error {
	crashpoint.Before(crashpoint.LogDirectory)
	err := unix.Mkdirat(dir, LogDir, 0o700)
	crashpoint.After(crashpoint.LogDirectory)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("create log directory: %w", err)
	}
	f, err := openBeneath(dir, LogDir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open log directory: %w", err)
	}
	defer f.Close()
	// The gofer writes there.
	uid, gid := maps.owner()
	crashpoint.Before(crashpoint.LogOwner)
	err = f.Chown(uid, gid)
	crashpoint.After(crashpoint.LogOwner)
	if err != nil {
		return fmt.Errorf("give log directory away: %w", err)
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list log directory: %w", err)
	}
	for _, n := range names {
		num, _, _ := strings.Cut(n, ".")
		a, err := strconv.ParseInt(num, 10, 64)
		if err != nil || a > attempt-keepAttempts {
			continue
		}
		crashpoint.Before(crashpoint.LogRemove)
		err = unix.Unlinkat(int(f.Fd()), n, 0)
		crashpoint.After(crashpoint.LogRemove)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove old log %s: %w", n, err)
		}
	}
	return nil
}

func openLogFile(dir int, name string, flags int) (*os.File, error) {
	f, err := openBeneath(dir, LogDir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("open log directory: %w", err)
	}
	defer f.Close()
	fd, err := unix.Openat(int(f.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// stdio are the application's descriptors: 0 to 2, and those from 3 on.
type stdio struct {
	in, out, err *os.File
	more         []*os.File
}

// give returns the numbers that they have in the sentry.
func (s *stdio) give(d *donation) (fds []int) {
	for _, f := range append([]*os.File{s.in, s.out, s.err}, s.more...) {
		fds = append(fds, d.give(f))
	}
	return fds
}

// openOutput makes the pipes or the terminal of the application's output, unless
// it has streams of its own, and the pipe of the sentry's own, and gives their read ends and the log
// directory to the gofer.
func (l *Launcher) openOutput(dir int, la *launch, toGofer *donation) (_ *gofer.Logs, _ *stdio, sentryErr *os.File, err error) {
	attempt := la.rec.Attempt
	logs := &gofer.Logs{
		AppName: AppLogName(attempt), SentryName: SentryLogName(attempt), MaxBytes: limit(l.opts.LogMaxBytes, la.st.logSize), StdoutFD: -1, StderrFD: -1,
	}
	tree, err := cloneLogDir(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	logs.DirFD = toGofer.give(tree)

	var writers []*os.File
	defer func() {
		if err != nil {
			for _, w := range writers {
				w.Close()
			}
		}
	}()
	pipes := []*int{&logs.SentryFD, &logs.StdoutFD, &logs.StderrFD}
	terminal := la.streams == nil && la.st.spec.Process.Terminal
	if la.streams != nil || terminal {
		pipes = pipes[:1]
	}
	for _, fd := range pipes {
		r, w, err := pipe()
		if err != nil {
			return nil, nil, nil, err
		}
		writers = append(writers, w)
		*fd = toGofer.give(r)
	}
	if la.streams != nil {
		s, err := la.streams.dup()
		if err != nil {
			return nil, nil, nil, err
		}
		return logs, s, writers[0], nil
	}
	if terminal {
		fd, s, err := ownTerminal(toGofer)
		if err != nil {
			return nil, nil, nil, err
		}
		logs.StdoutFD = fd
		return logs, s, writers[0], nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	return logs, &stdio{in: null, out: writers[1], err: writers[2]}, writers[0], nil
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

// cloneLogDir returns the log directory as a detached mount: a gofer that was
// taken over can't leave it through "..".
func cloneLogDir(dir int) (*os.File, error) {
	f, err := openBeneath(dir, LogDir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("open log directory: %w", err)
	}
	defer f.Close()
	fd, err := unix.OpenTree(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("clone log directory: %w", err)
	}
	tree := os.NewFile(uintptr(fd), LogDir)
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
		return nil, errors.Join(fmt.Errorf("restrict log directory: %w", err), tree.Close())
	}
	return tree, nil
}

// tailLog returns the end of a log file, for an error message.
func tailLog(dir int, name string, size int64) string {
	f, err := openBeneath(dir, LogDir+"/"+name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	b, err := io.ReadAll(io.NewSectionReader(f, max(info.Size()-size, 0), size))
	if err != nil {
		return ""
	}
	return string(b)
}
