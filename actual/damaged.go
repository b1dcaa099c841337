// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/fsys"
)

// copyFile is what the record said when the application was started, until the
// sandbox has ended. Until it is stopped the record does not change, so a damaged one can be put
// back from it, if the processes it names are the ones that live.
const copyFile = "meta.running.json"

// damagedDir keeps damaged records, so that a person can find out what happened
// to them.
const damagedDir = "damaged"

// errNoRecord says that a sandbox has everything but a record.
var errNoRecord = errors.New("it is missing, and other files of the sandbox are there")

// PutCopy keeps a second copy of the record of a sandbox that runs.
func (s *Store) PutCopy(r *Record) error {
	return s.put(r, "copy of record", func(dir fsys.Dir, b []byte) error { return s.write(dir, copyFile, b, false) })
}

// Copy returns the second copy of a record. It may be of an earlier attempt:
// nothing may be done on its word alone.
func (s *Store) Copy(name string) (*Record, error) {
	dir, err := s.dir(name)
	if err != nil {
		return nil, fmt.Errorf("read copy of record of %s: %w", name, err)
	}
	defer dir.Close()
	rec, _, err := readRecord(dir, copyFile, name)
	if err != nil {
		return nil, fmt.Errorf("read copy of record of %s: %w", name, err)
	}
	return rec, nil
}

// DropCopy removes the second copy of the record of a sandbox that has ended. That
// there is none is no error. It is on disk with the next write of the record.
func (s *Store) DropCopy(name string) error {
	dir, err := s.dir(name)
	if err != nil {
		return fmt.Errorf("drop copy of record of %s: %w", name, err)
	}
	defer dir.Close()
	err = crashpoint.Do(crashpoint.CopyRemove, func() error { return dir.Unlink(copyFile) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("drop copy of record of %s: %w", name, err)
	}
	return nil
}

// SetRecordAside takes the record of a name away, whatever it is, and returns
// where it is kept. The rest of its directory stays: the name is quarantined until
// there is a record again.
func (s *Store) SetRecordAside(name string) (string, error) {
	dir, err := s.Dir(name)
	if err != nil {
		return "", fmt.Errorf("set record of %s aside: %w", name, err)
	}
	defer dir.Close()
	kept, to, err := s.asideDir(name)
	if err != nil {
		return "", fmt.Errorf("set record of %s aside: %w", name, err)
	}
	defer kept.Close()
	if err := unix.Mkdirat(int(kept.Fd()), to, 0o700); err != nil {
		return "", fmt.Errorf("set record of %s aside: %w", name, err)
	}
	sub, err := openDir(kept, to)
	if err != nil {
		return "", fmt.Errorf("set record of %s aside: %w", name, err)
	}
	defer sub.Close()
	err = unix.Renameat2(int(dir.Fd()), RecordFile, int(sub.Fd()), RecordFile, unix.RENAME_NOREPLACE)
	if err == nil {
		err = errors.Join(sub.Sync(), kept.Sync(), dir.Sync())
	} else if errors.Is(err, unix.ENOENT) {
		// It was missing, or is there already: a second try after a crash.
		return "", unix.Unlinkat(int(kept.Fd()), to, unix.AT_REMOVEDIR)
	}
	if err != nil {
		return "", fmt.Errorf("set record of %s aside: %w", name, err)
	}
	return path.Join(s.path, damagedDir, to, RecordFile), nil
}

// SetAside takes the whole directory of a name away and returns where it is
// kept. Its processes are proven dead; the name is free afterwards. That it is
// not there is no error.
func (s *Store) SetAside(name string) (string, error) {
	if !s.valid(name) {
		return "", fmt.Errorf("set sandbox %q aside: %w", name, errInvalidName)
	}
	kept, to, err := s.asideDir(name)
	if err != nil {
		return "", fmt.Errorf("set sandbox %s aside: %w", name, err)
	}
	defer kept.Close()
	err = s.dirs.Rename(name, fsys.Of(kept), to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err == nil {
		err = errors.Join(unix.Fsync(int(kept.Fd())), s.dirs.Sync())
	}
	if err != nil {
		return "", fmt.Errorf("set sandbox %s aside: %w", name, err)
	}
	return path.Join(s.path, damagedDir, to), nil
}

// asideDir opens the directory of what is damaged, and says what a name's next
// entry in it is called.
func (s *Store) asideDir(name string) (*os.File, string, error) {
	if err := s.root.Mkdir(damagedDir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, "", err
	}
	d, err := openDir(s.RootDir(), damagedDir)
	if err != nil {
		return nil, "", err
	}
	return d, name + "." + time.Now().UTC().Format("20060102T150405.000000000Z"), nil
}

// missing says of a directory without a record whether there should be one. A
// create writes the record before anything else, so that what one leaves that
// died before it is empty but for a temporary file.
func missing(dir fsys.Dir) error {
	names, err := atomicfile.In{Dir: dir}.Names()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // removed meanwhile
	case err != nil:
		return err
	case len(names) > 0:
		return errNoRecord
	}
	return nil
}
