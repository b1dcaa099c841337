// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/launcher/image"
)

// lookEvery is how much is written between two looks at the disk.
const lookEvery = 64 << 20

// needRoom says image.ErrDiskFull if there is less room than n bytes.
func needRoom(dir *os.File, n int64) error {
	free, _, err := room.Of(dir)
	if err != nil {
		return err
	}
	if free < n {
		return fmt.Errorf("%w: %d MiB are needed, %d MiB may be used; free some room, or remove images with: sandboxctl image prune", image.ErrDiskFull, roundMiB(n), max(free, 0)>>20)
	}
	return nil
}

func roundMiB(n int64) int64 { return (n + 1<<20 - 1) >> 20 }

// roomy is a file that is written as long as there is room.
type roomy struct {
	dir     *os.File
	file    *os.File
	unasked int64       // bytes since the last look
	failed  func(error) // is told that something could not be written, if it is not nil
	pushed  int64       // the end of what the kernel was told to write to the disk
}

// pushEvery is how much is written before the disk begins.
const pushEvery = 8 << 20

// push has the disk write what comes before end, beside all else. The kernel would begin
// after half a minute, so that the sync in the end waited for everything.
func (r *roomy) push(end int64) {
	if n := end - r.pushed; n >= pushEvery {
		_ = unix.SyncFileRange(int(r.file.Fd()), r.pushed, n, unix.SYNC_FILE_RANGE_WRITE) // the sync tells of errors
		r.pushed = end
	}
}

// grow is called before n bytes are written.
func (r *roomy) grow(n int) error {
	if r.unasked -= int64(n); r.unasked >= 0 {
		return nil
	}
	r.unasked = lookEvery
	return needRoom(r.dir, int64(n))
}

// WriteAt implements erofs.File.
func (r *roomy) WriteAt(b []byte, off int64) (n int, err error) {
	defer func() {
		if err != nil && r.failed != nil {
			r.failed(err)
		}
	}()
	if err := r.grow(len(b)); err != nil {
		return 0, err
	}
	err = crashpoint.Do(crashpoint.MergeWrite, func() error {
		n, err = r.file.WriteAt(b, off)
		return err
	})
	r.push(off + int64(n))
	return n, image.Full(err)
}

// Truncate implements erofs.File.
func (r *roomy) Truncate(size int64) error { return image.Full(r.file.Truncate(size)) }

// Punch implements erofs.File. Where the file system has no holes, the room stays taken.
func (r *roomy) Punch(off, n int64) error {
	err := crashpoint.Do(crashpoint.MergePunch, func() error {
		return unix.Fallocate(int(r.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// scratch is the file of an archive that is compressed as a whole, uncompressed. The file
// is not embedded: its other ways to be written to do not look at the room.
type scratch struct {
	pending *atomicfile.Pending
	roomy
}

// temp makes one.
func (s *Puller) temp() (*scratch, error) {
	p, err := s.Scratch()
	if err != nil {
		return nil, err
	}
	return &scratch{p, roomy{dir: s.Dir(), file: p.File}}, nil
}

// Write implements io.Writer.
func (s *scratch) Write(b []byte) (int, error) {
	if err := s.grow(len(b)); err != nil {
		return 0, err
	}
	n, err := s.file.Write(b)
	return n, image.Full(err)
}

// Read implements io.Reader.
func (s *scratch) Read(b []byte) (int, error) { return s.file.Read(b) }

// ReadAt implements io.ReaderAt.
func (s *scratch) ReadAt(b []byte, off int64) (int, error) { return s.file.ReadAt(b, off) }

// Seek implements io.Seeker.
func (s *scratch) Seek(off int64, whence int) (int64, error) { return s.file.Seek(off, whence) }

// Close removes it.
func (s *scratch) Close() error { return s.pending.Discard() }
