// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"errors"
	"io/fs"
	"slices"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/rounds"
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
	files, err := k.filesOf(&logTree{sandbox: name, attempt: attempt})
	if err != nil || len(files) == 0 {
		return err
	}
	if slices.ContainsFunc(files, func(f logFile) bool { return f.rank == rankForeign }) {
		return errForeign
	}
	d := &actual.Deleted{Name: name, Attempt: attempt, At: time.Now()}
	if err := k.Store.KeepDeleted(d, sandboxlog.Dir); err != nil {
		return err
	}
	k.note(d, files)
	// Now, and not with the next sweep: sandboxes can be made and deleted faster.
	return k.trimDeleted().Do()
}

// Drop removes the logs of a sandbox that stays on record, if they are still there.
func (k *Keeper) Drop(name string) error {
	dir, err := k.Store.Dir(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return k.Store.Discard(dir, sandboxlog.Dir, name)
}

// trimDeleted trims the logs of deleted sandboxes, once for all that are removed at once.
func (k *Keeper) trimDeleted() *rounds.Rounds {
	k.trimming.Lock()
	defer k.trimming.Unlock()
	if k.deletedTrims == nil {
		k.deletedTrims = rounds.Of(func() error {
			_, err := k.trim(nil)
			return err
		})
	}
	return k.deletedTrims
}

// errForeign says that a log directory has something in it that is no log.
var errForeign = errors.New("there are other things than logs in its log directory")

// note remembers the files of logs that were just kept. Nobody writes to them any
// more: to read them all again with each removal would make the removal of many
// sandboxes cost the square of their number.
func (k *Keeper) note(d *actual.Deleted, files []logFile) {
	t := &logTree{sandbox: d.Name, attempt: d.Attempt, deleted: d}
	for i := range files {
		files[i].tree, files[i].rank = t, rankDeleted
	}
	k.trimming.Lock()
	defer k.trimming.Unlock()
	if k.kept == nil {
		k.kept = map[string][]logFile{}
	}
	k.kept[d.Entry()] = files
}

// expireDeleted removes the logs of deleted sandboxes whose time is over, that are
// too many, or that are empty. It returns the files of what is left. Where the clock was
// set back, what was deleted later than now is kept as long again at most.
func (k *Keeper) expireDeleted(now time.Time) ([]logFile, error) {
	list, err := k.Store.ListDeleted()
	if err != nil || len(list) == 0 {
		k.kept = nil
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
	var left []logFile
	var errs []error
	known := make(map[string][]logFile, len(list))
	for i, d := range list {
		entry := d.Entry()
		if now.Sub(d.At).Abs() <= k.KeepDeleted && i < actual.MaxDeleted {
			files, measured := k.kept[entry]
			if !measured {
				files, err = k.filesOf(&logTree{sandbox: d.Name, attempt: d.Attempt, deleted: d})
				k.notMeasured(d.Name, err)
			}
			if err == nil && len(files) > 0 {
				known[entry] = files
			}
			if err != nil || len(files) > 0 {
				left, err = append(left, files...), nil
				continue
			}
		}
		errs = append(errs, k.Store.Discard(dir, entry, d.Name))
	}
	k.kept = known
	return left, errors.Join(errs...)
}
