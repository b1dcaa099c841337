// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/gofer/sandboxlog"
)

// Room says why nothing can be created on the disk of the state, nil if something
// can. Logs that nobody needs are dropped for it.
func (k *Keeper) Room() error {
	disk, err := k.Store.Disk()
	if err != nil || disk.Full() == nil {
		return err
	}
	if _, err := k.Trim(); err != nil {
		k.Log.Warn("old logs not removed", "err", err)
	}
	if disk, err = k.Store.Disk(); err != nil {
		return err
	}
	return disk.Full()
}

// logTree is the logs of all attempts of a sandbox, deleted or not.
type logTree struct {
	sandbox string
	attempt int64           // the last one
	deleted *actual.Deleted // nil if it is on record
}

// logFile is a log that can be dropped.
type logFile struct {
	tree    *logTree
	attempt int64
	name    string
	bytes   uint64
	changed int64
	rank    int
}

// Ranks of logs, in the order in which they are dropped.
const (
	rankForeign  = iota // no log: a gofer that was taken over made it
	rankDeleted         // of a deleted sandbox
	rankPrevious        // of an attempt before
	rankRotated         // the older file of the current attempt
	rankCurrent         // not dropped
)

// maxDeletedLogs is how much the logs of all deleted sandboxes may take together.
const maxDeletedLogs = 64 << 20

// Trim removes logs while the logs of all sandboxes take more than they may,
// or the disk has less free space than logs leave: those of deleted sandboxes
// first, then those of runs before the current one, the oldest first, then the
// older halves of the current ones. Logs of deleted sandboxes are removed as well
// when their time is over or they are too many. It needs no room on the disk. It
// returns how many bytes were freed.
func (k *Keeper) Trim() (freed uint64, err error) {
	list, err := k.Store.List()
	if err != nil {
		return 0, err
	}
	trees := make([]*logTree, len(list.Records))
	for i, rec := range list.Records {
		trees[i] = &logTree{sandbox: rec.Name, attempt: rec.Attempt}
	}
	return k.trim(trees)
}

// TrimGrown is Trim for a caller that asks again and again. It measures the logs only if
// they can have grown beyond their bounds since they were measured, as far as the disk
// tells, if the last try failed, and at the latest after measureAtLeast: what somebody
// else frees meanwhile could hide that logs grow.
func (k *Keeper) TrimGrown() error {
	disk, err := k.Store.Disk()
	if err == nil && k.mayHaveGrown(disk, time.Now()) {
		if _, err = k.Trim(); err != nil {
			k.trimming.Lock()
			defer k.trimming.Unlock()
			k.measured = measured{}
		}
	}
	return err
}

// Logs of hundreds of sandboxes are measured by thousands of system calls.
const (
	measureAtLeast = 5 * time.Minute
	// fewFiles is how many files a disk may lose before the logs are measured.
	fewFiles = 1000
)

// measured is what was known when logs were measured, and how the disk was then. What
// others free counts as if it had been free then.
type measured struct {
	at        time.Time
	headroom  uint64 // by how much the logs may grow
	free      uint64
	freeFiles uint64
}

func (k *Keeper) mayHaveGrown(disk room.Disk, now time.Time) bool {
	k.trimming.Lock()
	defer k.trimming.Unlock()
	m := &k.measured
	m.free, m.freeFiles = max(m.free, disk.Free), max(m.freeFiles, disk.FreeFiles)
	since, atLeast := now.Sub(m.at), measureAtLeast
	if k.KeepDeleted > 0 {
		atLeast = min(atLeast, k.KeepDeleted/10) // soon after their time is over
	}
	return m.at.IsZero() || since < 0 || since >= atLeast ||
		disk.Free < disk.LeastFreeForLogs() || m.free-disk.Free > m.headroom || m.freeFiles-disk.FreeFiles > fewFiles
}

// trim is Trim of these sandboxes and the deleted ones; nil are the deleted ones alone.
func (k *Keeper) trim(trees []*logTree) (freed uint64, err error) {
	k.trimming.Lock()
	defer k.trimming.Unlock()
	disk, err := k.Store.Disk()
	if err != nil {
		return 0, err
	}
	deleted, err := k.expireDeleted(time.Now())
	errs := []error{err}
	files := append(k.logFiles(trees), deleted...)
	var sum, kept uint64
	for i := range files {
		sum += files[i].bytes
		if files[i].rank == rankDeleted {
			kept += files[i].bytes
		}
	}
	most := disk.MostLogs()
	if k.Space > 0 {
		most = k.Space
	}
	if trees != nil {
		k.measured = measured{at: time.Now(), headroom: most - min(sum, most), free: disk.Free, freeFiles: disk.FreeFiles}
	}
	slices.SortFunc(files, dropOrder)
	for i := range files {
		f := &files[i]
		enough := sum-freed <= most && (disk.Total == 0 || disk.Free+freed >= disk.LeastFreeForLogs())
		switch {
		case f.rank == rankForeign, f.rank == rankDeleted && kept > maxDeletedLogs:
		case enough, f.rank == rankCurrent:
			return freed, errors.Join(errs...)
		}
		if f.tree.deleted != nil {
			delete(k.kept, f.tree.deleted.Entry()) // it is read again
		}
		if err := k.dropLog(f); err != nil {
			errs = append(errs, err)
			continue
		}
		freed += f.bytes
		if f.rank == rankDeleted {
			kept -= f.bytes
		}
	}
	return freed, errors.Join(errs...)
}

// dropOrder is the order in which logs are dropped: of deleted sandboxes those of
// the one first that was deleted first.
func dropOrder(a, b logFile) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), a.tree.deletedAt().Compare(b.tree.deletedAt()), cmp.Compare(a.changed, b.changed),
		strings.Compare(a.tree.sandbox, b.tree.sandbox), cmp.Compare(a.attempt, b.attempt), strings.Compare(a.name, b.name))
}

// logFiles lists the logs of sandboxes.
func (k *Keeper) logFiles(trees []*logTree) []logFile {
	var out []logFile
	for _, t := range trees {
		files, err := k.filesOf(t)
		k.notMeasured(t.sandbox, err) // it hides no other
		out = append(out, files...)
	}
	return out
}

func (k *Keeper) notMeasured(sandbox string, err error) {
	if err != nil {
		k.Log.Warn("logs not measured", "sandbox", sandbox, "err", err)
	}
}

// filesOf lists the logs of one sandbox.
func (k *Keeper) filesOf(t *logTree) (out []logFile, err error) {
	err = k.eachAttempt(t, func(attempt string, dir *os.File) error {
		n, err := strconv.ParseInt(attempt, 10, 64)
		if err != nil {
			return nil //nolint:nilerr // of an earlier version: the next attempt removes it
		}
		names, err := untrusted.List(int(dir.Fd()), sandboxlog.MaxEntries)
		for _, name := range names {
			var st unix.Stat_t
			if serr := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); serr != nil {
				err = errors.Join(err, ignoreMissing(serr)) // it may be removed meanwhile
				continue
			}
			f := logFile{t, n, name, uint64(st.Blocks) * 512, st.Mtim.Sec, rankCurrent}
			switch {
			case !isLogFile(name, &st):
				f.rank = rankForeign
			case t.deleted != nil:
				f.rank = rankDeleted
			case n < t.attempt:
				f.rank = rankPrevious
			case strings.HasSuffix(name, ".1"):
				f.rank = rankRotated
			}
			out = append(out, f)
		}
		return err
	})
	return out, err
}

func isLogFile(name string, st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFREG && slices.Contains([]string{AppFile, SentryFile, GoferFile}, strings.TrimSuffix(name, ".1"))
}

// open opens the directory of the logs of all attempts.
func (t *logTree) open(store *actual.Store) (*os.File, error) {
	if t.deleted != nil {
		dir, err := store.OpenDeletedDir()
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		return untrusted.OpenDir(int(dir.Fd()), t.deleted.Entry())
	}
	dir, err := store.Dir(t.sandbox)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return untrusted.OpenDir(int(dir.Fd()), sandboxlog.Dir)
}

func (t *logTree) deletedAt() time.Time {
	if t.deleted == nil {
		return time.Time{}
	}
	return t.deleted.At
}

// eachAttempt calls fn with the log directory of each attempt of a sandbox.
func (k *Keeper) eachAttempt(t *logTree, fn func(attempt string, dir *os.File) error) error {
	all, err := t.open(k.Store)
	if err != nil {
		return ignoreMissing(err)
	}
	defer all.Close()
	names, err := untrusted.List(int(all.Fd()), sandboxlog.MaxEntries)
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

// dropLog removes one log. A process that has it open keeps a file without a name.
func (k *Keeper) dropLog(f *logFile) error {
	dropped := false
	err := k.eachAttempt(f.tree, func(attempt string, dir *os.File) error {
		if attempt != attemptDir(f.attempt) || dropped {
			return nil
		}
		dropped = true
		err := unix.Unlinkat(int(dir.Fd()), f.name, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			return k.Store.Discard(dir, f.name, f.tree.sandbox)
		}
		return ignoreMissing(err)
	})
	if err != nil {
		return fmt.Errorf("drop log %q of %s: %w", f.name, f.tree.sandbox, err)
	}
	return nil
}
