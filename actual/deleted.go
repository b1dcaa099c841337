// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/untrusted"
)

// DeletedDir has the logs of deleted sandboxes, each in a directory of its own that
// is named NAME.ATTEMPT.TIME.
const DeletedDir = "deleted"

// MaxDeleted is how many deleted sandboxes have their logs kept.
const MaxDeleted = 100

// listDeleted bounds how many entries of the directory are looked at. Who deletes
// trims it each time.
const listDeleted = 10 * MaxDeleted

// Deleted names the kept logs of a deleted sandbox.
type Deleted struct {
	Name    string
	Attempt int64 // the last one
	At      time.Time
}

// Entry is the name of its directory.
func (d *Deleted) Entry() string {
	return d.Name + "." + strconv.FormatInt(d.Attempt, 10) + "." + strconv.FormatInt(d.At.UnixNano(), 10)
}

// ParseDeleted reads the name of such a directory.
func ParseDeleted(entry string) (*Deleted, bool) {
	parts := strings.Split(entry, ".")
	if len(parts) != 3 || !ValidName(parts[0]) {
		return nil, false
	}
	attempt, aerr := strconv.ParseInt(parts[1], 10, 64)
	at, terr := strconv.ParseInt(parts[2], 10, 64)
	d := &Deleted{Name: parts[0], Attempt: attempt, At: time.Unix(0, at)}
	return d, aerr == nil && terr == nil && d.Entry() == entry
}

// KeepDeleted moves the log directory logs of a sandbox that is about to be
// removed to those of deleted sandboxes. It needs no room but that of a name, and
// a crash leaves the logs in one place or the other.
func (s *Store) KeepDeleted(d *Deleted, logs string) error {
	err := s.root.Mkdir(DeletedDir, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("keep logs of %s: create directory: %w", d.Name, err)
	}
	from, err := s.Dir(d.Name)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := s.OpenDeletedDir()
	if err != nil {
		return fmt.Errorf("keep logs of %s: %w", d.Name, err)
	}
	defer to.Close()
	err = crashpoint.Do(crashpoint.LogKeep, func() error {
		return unix.Renameat2(int(from.Fd()), logs, int(to.Fd()), d.Entry(), unix.RENAME_NOREPLACE)
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("keep logs of %s: %w", d.Name, err)
	}
	return nil
}

// OpenDeletedDir opens the directory of all kept logs. The caller closes it.
func (s *Store) OpenDeletedDir() (*os.File, error) { return openDir(s.RootDir(), DeletedDir) }

// ListDeleted lists whose logs are kept, the last deleted first. What is not named
// like kept logs is passed over; the check of invariants tells it.
func (s *Store) ListDeleted() ([]*Deleted, error) {
	dir, err := s.OpenDeletedDir()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list logs of deleted sandboxes: %w", err)
	}
	defer dir.Close()
	names, err := untrusted.List(int(dir.Fd()), listDeleted)
	if err != nil {
		return nil, fmt.Errorf("list logs of deleted sandboxes: %w", err)
	}
	var out []*Deleted
	for _, n := range names {
		if d, ok := ParseDeleted(n); ok {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b *Deleted) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.Attempt, a.Attempt), strings.Compare(a.Name, b.Name))
	})
	return out, nil
}
