// SPDX-License-Identifier: Apache-2.0

package sandboxlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Follower reads one log and then what is added to it, through rotations.
type Follower struct {
	fsys fs.FS
	name string
	file fs.File
	info fs.FileInfo
	off  int64
}

// NewFollower returns a follower of the log name in fsys. Nothing is read yet.
func NewFollower(fsys fs.FS, name string) *Follower { return &Follower{fsys: fsys, name: name} }

// Next calls fn for every entry that was not yet read, and returns when there
// is no more for now.
func (f *Follower) Next(fn func(Entry) error) error {
	if f.file == nil {
		if _, err := readFile(f.fsys, f.name+".1", fn); err != nil {
			return err
		}
	}
	for {
		// The rest of the open file first, also when it has been rotated away.
		if err := f.drain(fn); err != nil {
			return err
		}
		now, err := fs.Stat(f.fsys, f.name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at log: %w", err)
		}
		if f.file != nil && os.SameFile(now, f.info) {
			return nil
		}
		next, err := f.fsys.Open(f.name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		info, err := next.Stat()
		if err != nil {
			return errors.Join(fmt.Errorf("open log: %w", err), next.Close())
		}
		f.Close()
		f.file, f.info, f.off = next, info, 0
	}
}

func (f *Follower) drain(fn func(Entry) error) error {
	if f.file == nil {
		return nil
	}
	r, ok := f.file.(io.ReaderAt)
	if !ok {
		return fmt.Errorf("read log: %s can't be read from a place", f.name)
	}
	n, err := Scan(io.NewSectionReader(r, f.off, 1<<62), fn)
	f.off += n
	return err
}

// Close ends the following.
func (f *Follower) Close() {
	if f.file != nil {
		// It was only read.
		_ = f.file.Close()
		f.file = nil
	}
}
