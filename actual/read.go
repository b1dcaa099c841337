// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/actual/upgrade"
)

// readFirst reads a record in as few system calls as there can be, for a program that
// looks once: the daemon compares a file with the one that it knows instead. Nil says only that it takes a closer look.
func (s *Store) readFirst(name string) *Record {
	rec, id, err := readRecord(s.dirs, name+"/"+RecordFile, name)
	if err != nil || s.foreign(rec) != nil {
		return nil
	}
	s.keep(name, cached{id: id, rec: rec})
	return rec
}

// damageError says of a record file that was read what is wrong with it.
type damageError struct{ error }

func (e *damageError) Unwrap() error { return e.error }

// buffers are for files of records, of which nothing is kept after they are decoded. A look
// at a fleet would touch new memory for each of them.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// readRecord reads a record file below dir. A *damageError says that nothing in
// it can be relied on.
func readRecord(dir fsys.Dir, file, name string) (*Record, fileID, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	b, id, err := readRegularID(dir, file, MaxRecord, buf)
	if errors.Is(err, errBadFile) {
		return nil, id, &damageError{err}
	}
	if err != nil {
		return nil, id, err
	}
	rec, err := DecodeRecord(b)
	switch {
	case errors.Is(err, upgrade.ErrNewer):
		return nil, id, err
	case err != nil:
		return nil, id, &damageError{err}
	case rec.Name != name:
		return nil, id, &damageError{fmt.Errorf("it is the record of %q", rec.Name)}
	}
	return rec, id, nil
}

// euid is the user of this program. It stays the same one, and is compared with the owner
// of every record.
var euid = sync.OnceValue(os.Geteuid)

// errBadFile says that a file is there and is not what we write.
var errBadFile = errors.New("not a state file")

// readRegular reads a small file of ours below dir: regular, owned by us, one
// name, not writable by others. It never blocks on a fifo and never follows a
// link.
func readRegular(dir fsys.Dir, name string, limit int64) ([]byte, error) {
	b, _, err := readRegularID(dir, name, limit, new([]byte))
	return b, err
}

// readRegularID is readRegular into a buffer, which grows if need be, and tells which file
// it was.
func readRegularID(dir fsys.Dir, name string, limit int64, buf *[]byte) ([]byte, fileID, error) {
	f, err := dir.Open(name)
	if errors.Is(err, unix.ELOOP) {
		return nil, fileID{}, fmt.Errorf("%w: it is a symbolic link", errBadFile)
	}
	if errors.Is(err, unix.ENXIO) {
		return nil, fileID{}, fmt.Errorf("%w: it is a socket, or a device without a driver", errBadFile)
	}
	if err != nil {
		return nil, fileID{}, fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fileID{}, fmt.Errorf("open %s: %w", name, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fileID{}, fmt.Errorf("%w: it is not a regular file", errBadFile)
	case int(st.Uid) != euid() || st.Mode&0o022 != 0 || st.Nlink > 1:
		return nil, fileID{}, fmt.Errorf("%w: others own it, may write it, or have a second name for it", errBadFile)
	case st.Size > limit:
		return nil, fileID{}, fmt.Errorf("%w: %d bytes, at most %d are expected", errBadFile, st.Size, limit)
	}
	b, err := dirfd.ReadRegularTo(*buf, f, st.Size, limit)
	if err != nil {
		return nil, fileID{}, fmt.Errorf("read %s: %w", name, err)
	}
	*buf = b
	if int64(len(b)) > limit {
		return nil, fileID{}, fmt.Errorf("%w: more than %d bytes", errBadFile, limit)
	}
	return b, idOf(&st), nil
}
