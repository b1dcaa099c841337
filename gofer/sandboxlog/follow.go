// SPDX-License-Identifier: Apache-2.0

package sandboxlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// Follower reads one log, NAME.1 and then NAME, and then what is added to it,
// through rotations. A line that is not one of ours is passed over, a file that
// does not exist is empty. What is lost is what a second rotation removes
// before it was read.
type Follower struct {
	fsys fs.FS
	name string
	cur  *logFile // what is read, nil if there is nothing yet
}

// logFile is an open file of a log and how far it was read.
type logFile struct {
	file fs.File
	at   io.ReaderAt
	info fs.FileInfo
	off  int64
}

// NewFollower returns a follower of the log name in fsys. Nothing is read yet.
func NewFollower(fsys fs.FS, name string) *Follower { return &Follower{fsys: fsys, name: name} }

// What is read at once. The files are a gofer's, which can be taken over and then
// makes them as large as it likes, without using the disk, and as often.
const (
	maxUnread    = 256 << 20
	maxRotations = 16
)

// Next calls fn for every entry that was not yet read, and returns when there
// is no more for now. The text of an entry is valid during the call.
func (f *Follower) Next(fn func(Entry) error) error {
	for range maxRotations {
		if err := f.cur.read(fn); err != nil {
			return err
		}
		next, err := f.open(f.name, f.cur)
		if next == nil && err == nil && f.cur == nil {
			// No file, and perhaps for long: a full disk can let it be rotated
			// away and no new one be made.
			next, err = f.open(f.name+".1", nil)
		}
		if next == nil || err != nil {
			return err
		}
		if err := f.finish(next, fn); err != nil {
			return errors.Join(err, next.file.Close())
		}
		f.Close()
		f.cur = next
	}
	return nil
}

// finish reads what comes before next: the rest of the current file, which
// nobody writes to any more, and the file between the two if there is one.
func (f *Follower) finish(next *logFile, fn func(Entry) error) error {
	if err := f.cur.read(fn); err != nil {
		return err
	}
	between, err := f.open(f.name+".1", f.cur, next)
	if between == nil || err != nil {
		return err
	}
	defer between.file.Close()
	return between.read(fn)
}

// open opens a file; it is nil if there is none or it is one of those given.
func (f *Follower) open(name string, but ...*logFile) (*logFile, error) {
	// Looked at first: mostly it is what is open already.
	info, err := fs.Stat(f.fsys, name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && isOneOf(info, but) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at log: %w", err)
	}
	file, err := f.fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l := &logFile{file: file}
	if l.info, err = file.Stat(); err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), file.Close())
	}
	var ok bool
	if l.at, ok = file.(io.ReaderAt); !ok {
		return nil, errors.Join(fmt.Errorf("open log: %s can't be read from a place", name), file.Close())
	}
	if isOneOf(l.info, but) {
		return nil, file.Close()
	}
	return l, nil
}

func isOneOf(info fs.FileInfo, files []*logFile) bool {
	return slices.ContainsFunc(files, func(l *logFile) bool { return l != nil && os.SameFile(info, l.info) })
}

// read calls fn for what was added since the last time.
func (l *logFile) read(fn func(Entry) error) error {
	if l == nil {
		return nil
	}
	info, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("look at log: %w", err)
	}
	size := info.Size()
	if size < l.off {
		l.off = 0 // it was emptied, to free the disk
	}
	if skip := size - l.off - maxUnread; skip > 0 && sparse(info) {
		l.off += skip
		e := Entry{At: info.ModTime(), Stream: Internal, Full: true, Text: fmt.Appendf(nil, "%d bytes were passed over: there is nothing in most of the file", skip)}
		if err := fn(e); err != nil {
			return err
		}
	}
	n, err := Scan(io.NewSectionReader(l.at, l.off, size-l.off), fn)
	l.off += n
	return err
}

// sparse says of a file that most of it is on no disk.
func sparse(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Blocks*512 < st.Size/2
}

// Close ends the following.
func (f *Follower) Close() {
	if f.cur != nil {
		// It was only read.
		_ = f.cur.file.Close()
		f.cur = nil
	}
}
