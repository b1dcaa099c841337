// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/rounds"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/gofer/sandboxlog"
)

// Keeper makes the log directories of a store, and bounds them.
type Keeper struct {
	Store *actual.Store
	// Space is how many bytes all logs may take together; 0 is the default for the
	// disk.
	Space uint64
	// KeepDeleted is how long the logs of deleted sandboxes are kept.
	KeepDeleted time.Duration
	Log         *slog.Logger

	trimming sync.Mutex // held while logs are measured and dropped
	// kept are the files of deleted sandboxes that were measured, by the name of their
	// directory. Whatever is not here is read.
	kept     map[string][]logFile
	measured measured
	// deletedTrims are shared by the removals that are under way.
	deletedTrims *rounds.Rounds
}

// Files in the log directory of an attempt: one for each container, which has its
// name, and two of the sandbox. No container is named sentry or gofer.
const (
	AppFile    = actual.AppName + ".log" // what the application writes
	SentryFile = "sentry.log"            // the sentry's own diagnostics
	GoferFile  = "gofer.log"             // the gofer's
)

// keepAttempts is how many attempts have their logs kept: the current one and
// the one before, for `logs --previous`.
const keepAttempts = 2

func attemptDir(attempt int64) string { return strconv.FormatInt(attempt, 10) }

// Prepare makes the log directory of an attempt and removes those of attempts
// before the last. It belongs to the user and group that the gofer is on the
// host. The caller closes it.
func (k *Keeper) Prepare(dir *os.File, name string, attempt int64, uid, gid int) (*os.File, error) {
	all, err := k.makeDir(dir, sandboxlog.Dir, name, false)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	if err := all.Chown(os.Geteuid(), os.Getegid()); err != nil {
		return nil, fmt.Errorf("take log directory back: %w", err)
	}
	k.dropLogs(all, name, attempt)
	logs, err := k.makeDir(all, attemptDir(attempt), name, true)
	if err != nil {
		return nil, err
	}
	// The gofer writes there.
	err = crashpoint.Do(crashpoint.LogOwner, func() error { return logs.Chown(uid, gid) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("give log directory away: %w", err), logs.Close())
	}
	return logs, nil
}

// makeDir makes a directory and opens it. What is there already is discarded if
// it is not a directory, or if the directory must be new.
func (k *Keeper) makeDir(dir *os.File, entry, name string, isNew bool) (*os.File, error) {
	for try := 0; ; try++ {
		err := crashpoint.Do(crashpoint.LogDirectory, func() error { return unix.Mkdirat(int(dir.Fd()), entry, 0o700) })
		var d *os.File
		if err == nil || !isNew && errors.Is(err, unix.EEXIST) {
			d, err = untrusted.OpenDir(int(dir.Fd()), entry)
		}
		switch {
		case err == nil:
			return d, nil
		case try > 0 || !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP):
			return nil, fmt.Errorf("create log directory: %w", err)
		}
		if err := k.Store.Discard(dir, entry, name); err != nil {
			return nil, fmt.Errorf("create log directory: %w", err)
		}
	}
}

// dropLogs removes the logs of attempts before the last, and what an earlier
// version has left. A new attempt does not depend on it.
func (k *Keeper) dropLogs(all *os.File, name string, attempt int64) {
	names, err := untrusted.List(int(all.Fd()), sandboxlog.MaxEntries)
	for _, n := range names {
		num, _, _ := strings.Cut(n, ".") // an earlier version had N.log
		if a, err := strconv.ParseInt(num, 10, 64); err == nil && a > attempt-keepAttempts && a < attempt {
			continue
		}
		err = errors.Join(err, k.Store.Discard(all, n, name))
	}
	if err != nil {
		k.Log.Warn("old logs not removed", "sandbox", name, "err", err)
	}
}

// Create creates a file in a log directory that is new.
func Create(logs *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(logs.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create log %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Clone returns the log directory as a detached mount: a gofer that was
// taken over can't leave it through "..".
func Clone(logs *os.File) (*os.File, error) {
	fd, err := unix.OpenTree(int(logs.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("clone log directory: %w", err)
	}
	tree := os.NewFile(uintptr(fd), sandboxlog.Dir)
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
		return nil, errors.Join(fmt.Errorf("restrict log directory: %w", err), tree.Close())
	}
	return tree, nil
}

// Attempt is the logs of one attempt.
type Attempt struct {
	files       *untrusted.FS
	app, sentry string
}

// Open opens the logs of an attempt. fs.ErrNotExist if there are none.
func Open(store *actual.Store, name string, attempt int64) (*Attempt, error) {
	return open(store, &logTree{sandbox: name}, attempt)
}

// OpenDeleted opens the logs of an attempt of a deleted sandbox.
func OpenDeleted(store *actual.Store, d *actual.Deleted, attempt int64) (*Attempt, error) {
	return open(store, &logTree{sandbox: d.Name, deleted: d}, attempt)
}

func open(store *actual.Store, t *logTree, attempt int64) (*Attempt, error) {
	all, err := t.open(store)
	if err != nil {
		return nil, fmt.Errorf("open logs of %s: %w", t.sandbox, err)
	}
	num := attemptDir(attempt)
	d, err := untrusted.OpenDir(int(all.Fd()), num)
	if errors.Is(err, unix.ENOENT) {
		// Started by an earlier version, which had one directory for all attempts.
		var st unix.Stat_t
		for _, f := range []string{num + ".log", num + ".sentry.log"} {
			if unix.Fstatat(int(all.Fd()), f, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
				return &Attempt{untrusted.NewFS(all), num + ".log", num + ".sentry.log"}, nil
			}
		}
	}
	all.Close()
	if err != nil {
		return nil, fmt.Errorf("open logs of %s: %w", t.sandbox, err)
	}
	return &Attempt{untrusted.NewFS(d), AppFile, SentryFile}, nil
}

// App follows what the application writes.
func (l *Attempt) App() *sandboxlog.Follower { return sandboxlog.NewFollower(l.files, l.app) }

// FirstOutput is when the application wrote its first line; see sandboxlog.First.
func (l *Attempt) FirstOutput() (time.Time, error) { return sandboxlog.First(l.files, l.app) }

// Sentry follows the sentry's own diagnostics.
func (l *Attempt) Sentry() *sandboxlog.Follower { return sandboxlog.NewFollower(l.files, l.sentry) }

// Close closes the directory; files that are followed stay open.
func (l *Attempt) Close() error { return l.files.Close() }

// Tail returns the end of a log file, for an error message.
func (l *Attempt) Tail(name string, size int64) string {
	f, err := l.files.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	at, ok := f.(io.ReaderAt)
	if !ok {
		return ""
	}
	b, err := io.ReadAll(io.NewSectionReader(at, max(info.Size()-size, 0), size))
	if err != nil {
		return ""
	}
	return string(b)
}
