// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/untrusted"
)

// room says why nothing can be created on the disk of the state, nil if something
// can. Logs that nobody needs are dropped for it.
func (l *Launcher) room() error {
	disk, err := l.store.Disk()
	if err != nil || disk.Full() == nil {
		return err
	}
	if _, err := l.TrimLogs(); err != nil {
		l.opts.Log.Warn("old logs not removed", "err", err)
	}
	if disk, err = l.store.Disk(); err != nil {
		return err
	}
	return disk.Full()
}

// logFile is a log that can be dropped.
type logFile struct {
	sandbox, attempt, name string
	bytes                  uint64
	changed                int64
	rank                   int
}

// Ranks of logs, in the order in which they are dropped.
const (
	rankForeign  = iota // no log: a gofer that was taken over made it
	rankPrevious        // of an attempt before
	rankRotated         // the older file of the current attempt
	rankCurrent         // not dropped
)

// TrimLogs removes logs while the logs of all sandboxes take more than they may,
// or the disk has less free space than logs leave: those of runs before the
// current one first, the oldest first, then the older halves of the current ones.
// It needs no room on the disk. It returns how many bytes were freed.
func (l *Launcher) TrimLogs() (freed uint64, err error) {
	disk, err := l.store.Disk()
	if err != nil {
		return 0, err
	}
	files, err := l.logFiles()
	if err != nil {
		return 0, err
	}
	var sum uint64
	for i := range files {
		sum += files[i].bytes
	}
	most := disk.MostLogs()
	if l.opts.LogSpace > 0 {
		most = l.opts.LogSpace
	}
	slices.SortFunc(files, func(a, b logFile) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.changed, b.changed), strings.Compare(a.sandbox, b.sandbox), strings.Compare(a.name, b.name))
	})
	var errs []error
	for i := range files {
		f := &files[i]
		enough := sum-freed <= most && (disk.Total == 0 || disk.Free+freed >= disk.LeastFreeForLogs())
		if f.rank == rankCurrent || enough && f.rank != rankForeign {
			break
		}
		if err := l.dropLog(f); err != nil {
			errs = append(errs, err)
			continue
		}
		freed += f.bytes
	}
	return freed, errors.Join(errs...)
}

// logFiles lists the logs of all sandboxes on record.
func (l *Launcher) logFiles() ([]logFile, error) {
	list, err := l.store.List()
	if err != nil {
		return nil, err
	}
	var out []logFile
	for _, rec := range list.Records {
		err := l.eachAttempt(rec.Name, func(attempt string, dir *os.File) error {
			n, err := strconv.ParseInt(attempt, 10, 64)
			if err != nil {
				return nil //nolint:nilerr // of an earlier version: the next attempt removes it
			}
			names, err := untrusted.List(int(dir.Fd()), maxLogEntries)
			for _, name := range names {
				var st unix.Stat_t
				if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
					continue // removed meanwhile
				}
				f := logFile{rec.Name, attempt, name, uint64(st.Blocks) * 512, st.Mtim.Sec, rankCurrent}
				switch {
				case st.Mode&unix.S_IFMT != unix.S_IFREG || !isLog(name):
					f.rank = rankForeign
				case n < rec.Attempt:
					f.rank = rankPrevious
				case strings.HasSuffix(name, ".1"):
					f.rank = rankRotated
				}
				out = append(out, f)
			}
			return err
		})
		if err != nil {
			// It hides no other.
			l.opts.Log.Warn("logs not measured", "sandbox", rec.Name, "err", err)
		}
	}
	return out, nil
}

func isLog(name string) bool {
	switch strings.TrimSuffix(name, ".1") {
	case appLog, sentryLog, goferLog:
		return true
	}
	return false
}

// eachAttempt calls fn with the log directory of each attempt of a sandbox.
func (l *Launcher) eachAttempt(name string, fn func(attempt string, dir *os.File) error) error {
	dir, err := l.store.Dir(name)
	if err != nil {
		return ignoreMissing(err)
	}
	defer dir.Close()
	all, err := untrusted.OpenDir(int(dir.Fd()), LogDir)
	if err != nil {
		return ignoreMissing(err)
	}
	defer all.Close()
	names, err := untrusted.List(int(all.Fd()), maxLogEntries)
	for _, n := range names {
		d, derr := untrusted.OpenDir(int(all.Fd()), n)
		if derr != nil {
			continue
		}
		err = errors.Join(err, fn(n, d))
		d.Close()
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// dropLog removes one log. Who has it open goes on with a file that has no name.
func (l *Launcher) dropLog(f *logFile) error {
	dropped := false
	err := l.eachAttempt(f.sandbox, func(attempt string, dir *os.File) error {
		if attempt != f.attempt || dropped {
			return nil
		}
		dropped = true
		err := unix.Unlinkat(int(dir.Fd()), f.name, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			return l.store.Discard(dir, f.name, f.sandbox)
		}
		return ignoreMissing(err)
	})
	if err != nil {
		return fmt.Errorf("drop log %q of %s: %w", f.name, f.sandbox, err)
	}
	return nil
}
