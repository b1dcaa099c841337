// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/cgroup"
)

// EndUnrecorded kills the sentry and the gofer of a sandbox whose record can't
// be read, and waits for their death: those of our processes that have a file of
// its directory open. The caller holds the name, so that none is being started.
// With them goes the cgroup they are in, if its name says that it is the sandbox's;
// one where a client wanted it is the client's to remove.
func (l *Launcher) EndUnrecorded(ctx context.Context, name string) error {
	dir, err := l.store.Dir(name)
	if err != nil {
		return fmt.Errorf("end processes of %s: %w", name, err)
	}
	defer dir.Close()
	files, err := filesOf(dir)
	if err != nil {
		return fmt.Errorf("end processes of %s: %w", name, err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	var (
		errs   []error
		groups []*cgroup.Group
	)
	for _, p := range procs {
		role, id, err := holderOf(p, files)
		if err == nil && id != nil {
			group, gerr := l.groupOf(name, role, id)
			if group != nil {
				groups = append(groups, group)
			}
			err = errors.Join(gerr, l.kill(ctx, role, id, 0))
		}
		errs = append(errs, err)
	}
	// When both are dead: the gofer may have left by itself, with its sentry.
	for _, g := range groups {
		errs = append(errs, l.removeGroup(ctx, g))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end processes of %s: %w", name, err)
	}
	return nil
}

// groupOf opens the cgroup of a process that is alive, if it is the sandbox's own;
// nil if not.
func (l *Launcher) groupOf(name, role string, id *actual.Identity) (*cgroup.Group, error) {
	p, err := actual.Open(*id)
	if errors.Is(err, actual.ErrGone) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s (pid %d): %w", ErrUnknownProcess, role, id.PID, err)
	}
	defer p.Close()
	group, err := l.cgroups.OwnOf(id.PID, name)
	if p.Alive() == actual.Alive {
		return group, err
	}
	// What was read may be a successor's.
	if err == nil {
		return nil, group.Close()
	}
	return nil, nil
}

// removeGroup kills what is left in a cgroup and removes it.
func (l *Launcher) removeGroup(ctx context.Context, group *cgroup.Group) error {
	ctx, cancel := context.WithTimeout(ctx, l.opts.KillTimeout)
	defer cancel()
	return errors.Join(group.Kill(), group.Remove(ctx), group.Close())
}

type inode struct{ dev, ino uint64 }

// filesOf are the files below a directory, and itself.
func filesOf(dir *os.File) (map[inode]bool, error) {
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	out := map[inode]bool{}
	err = fs.WalkDir(root.FS(), ".", func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			out[inode{st.Dev, st.Ino}] = true
		}
		return nil
	})
	return out, err
}

// holderOf returns the identity of a sentry or gofer that has one of the files
// open, nil of every other process. It is taken through a pidfd that is older
// than the look at the files, so that it is of the process that was looked at.
func holderOf(proc string, files map[inode]bool) (role string, _ *actual.Identity, err error) {
	pid, err := strconv.Atoi(filepath.Base(proc))
	if err != nil {
		return "", nil, err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return "", nil, nil //nolint:nilerr // it has ended
	}
	defer unix.Close(pidfd)
	b, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		return "", nil, nil //nolint:nilerr // it has ended
	}
	switch name, _, _ := strings.Cut(string(b), "\x00"); name {
	case SentryName:
		role = "sentry"
	case gofer.Argv0:
		role = "gofer"
	default:
		return "", nil, nil
	}
	id, err := actual.Identify(pidfd, pid)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("identify process %d: %w", pid, err)
	}
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		return "", nil, fmt.Errorf("look at the files of process %d: %w", pid, err)
	}
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Stat(proc+"/fd/"+fd.Name(), &st) == nil && files[inode{st.Dev, st.Ino}] {
			return role, &id, nil
		}
	}
	return "", nil, nil
}
