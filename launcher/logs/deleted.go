// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/gofer/sandboxlog"
)

// Keep keeps the logs of a sandbox that is about to be removed, for
// KeepDeleted. If the disk is short of room, none are kept: the user may delete
// the sandbox to free them. If there is anything but logs, which only a gofer that was
// taken over can make, it goes into the trash.
func (k *Keeper) Keep(name string, attempt int64) error {
	if k.KeepDeleted <= 0 {
		return nil
	}
	disk, err := k.Store.Disk()
	if err != nil || disk.Pressure() != "" {
		return err
	}
	some, err := k.onlyLogs(&logTree{sandbox: name})
	if err != nil || !some {
		return err
	}
	d := &actual.Deleted{Name: name, Attempt: attempt, At: time.Now()}
	if err := k.Store.KeepDeleted(d, sandboxlog.Dir); err != nil {
		return err
	}
	// Now, and not with the next sweep: sandboxes can be made and deleted faster.
	_, err = k.trim(nil)
	return err
}

// errForeign says that a log directory has something in it that is no log.
var errForeign = errors.New("there are other things than logs in its log directory")

// onlyLogs says whether a sandbox has logs. It is an error if it has anything
// else in its log directory.
func (k *Keeper) onlyLogs(t *logTree) (some bool, err error) {
	err = k.eachAttempt(t, func(_ string, dir *os.File) error {
		names, err := untrusted.List(int(dir.Fd()), sandboxlog.MaxEntries)
		for _, n := range names {
			var st unix.Stat_t
			err := unix.Fstatat(int(dir.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW)
			if errors.Is(err, unix.ENOENT) {
				continue // dropped meanwhile
			}
			if err != nil {
				return err
			}
			if !isLogFile(n, &st) {
				return errForeign
			}
			some = true
		}
		return err
	})
	return some, err
}

// expireDeleted removes the logs of deleted sandboxes whose time is over, that are
// too many, or that are empty. It returns what is left. Where the clock was set
// back, what was deleted later than now is kept as long again at most.
func (k *Keeper) expireDeleted(now time.Time) ([]*logTree, error) {
	list, err := k.Store.ListDeleted()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	dir, err := k.Store.OpenDeletedDir()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var left []*logTree
	var errs []error
	for i, d := range list {
		t := &logTree{sandbox: d.Name, attempt: d.Attempt, deleted: d}
		if now.Sub(d.At).Abs() <= k.KeepDeleted && i < actual.MaxDeleted {
			if some, err := k.onlyLogs(t); some || err != nil {
				left = append(left, t)
				continue
			}
		}
		errs = append(errs, k.Store.Discard(dir, d.Entry(), d.Name))
	}
	return left, errors.Join(errs...)
}
