// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/checkpoint"
)

// Limits bound a snapshot that is made.
type Limits struct {
	// Sum is how much all snapshots may take together.
	Sum int64
}

// ErrTooLarge says that snapshots would take more than they may.
var ErrTooLarge = errors.New("all snapshots together would take more than the host policy allows")

// lockPatience is how long another program is waited for that makes a snapshot.
const lockPatience = 2 * time.Second

// Source is what a snapshot is made of.
type Source interface {
	// Write writes the state into a pipe, and returns when all of it was written.
	Write(ctx context.Context, leave bool, to *os.File) error
}

// Create makes a snapshot. It is there when all of it is on the disk, under a name that nothing
// else had: a crash before leaves what Sweep removes. The state comes through a pipe, and not
// from a sentry that has the file: it can't fill the disk, and nobody changes it later.
func (s *Store) Create(ctx context.Context, name string, info *checkpoint.Info, from Source, limits Limits) (_ *Entry, err error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	// One at a time, or each of several would see room for itself.
	if err := s.lock(ctx, lockPatience); err != nil {
		return nil, err
	}
	defer s.unlock()
	if err := s.sweep(); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(s.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return nil, ErrExists
	}
	sum, err := s.Sum()
	if err != nil {
		return nil, err
	}
	half := halfMade + actual.NewUID()
	if err := crashpoint.Do(crashpoint.SnapshotMake, func() error { return unix.Mkdirat(int(s.dir.Fd()), half, 0o700) }); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, discard(s.dir, half))
		}
	}()
	dir, err := openPrivate(s.dir, half)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	state, err := checkpoint.CreateState(dir)
	if err != nil {
		return nil, err
	}
	defer state.Close()
	w := &writer{file: state, disk: room.NewGauge(s.dir), left: limits.Sum - sum, most: limits.Sum, hash: sha256.New()}
	if err := receive(ctx, from, w); err != nil {
		return nil, err
	}
	if err := crashpoint.Do(crashpoint.SnapshotSync, state.Sync); err != nil {
		return nil, fmt.Errorf("sync state: %w", err)
	}
	if w.written == 0 {
		return nil, errors.New("the sentry wrote no state")
	}
	info.StateBytes, info.Checksum, info.ID = w.written, checksumOf(w.hash), actual.NewUID()
	if err := info.Put(dir); err != nil {
		return nil, err
	}
	if err := s.commit(half, name); err != nil {
		return nil, err
	}
	return entryOf(name, info), nil // it may have been removed already
}

// commit gives a snapshot that is whole its name, or leaves it half made.
func (s *Store) commit(half, name string) error {
	err := crashpoint.Do(crashpoint.SnapshotCommit, func() error {
		return unix.Renameat2(int(s.dir.Fd()), half, int(s.dir.Fd()), name, unix.RENAME_NOREPLACE)
	})
	if errors.Is(err, unix.EEXIST) {
		return ErrExists
	}
	if err == nil {
		if err = s.sync(); err == nil {
			return nil
		}
		// What is reported as not made must not be there: no start may begin from it.
		back := unix.Renameat2(int(s.dir.Fd()), name, int(s.dir.Fd()), half, unix.RENAME_NOREPLACE)
		if back != nil && !errors.Is(back, unix.ENOENT) { // somebody has removed it
			err = fmt.Errorf("%w; it has its name, and keeps it: %w", err, back)
		}
	}
	return fmt.Errorf("name snapshot: %w", err)
}

// writer writes a state as long as there is room for it.
type writer struct {
	file    *os.File
	disk    *room.Gauge
	hash    hash.Hash
	written int64
	left    int64 // how much more it may be
	most    int64
}

func (w *writer) Write(b []byte) (int, error) {
	if w.left -= int64(len(b)); w.left < 0 {
		return 0, fmt.Errorf("%w: %s (snapshots.maxSize); remove some, or have the administrator raise it", ErrTooLarge, scalar.Bytes(w.most))
	}
	if err := w.disk.Grow(len(b)); err != nil {
		return 0, err
	}
	n, err := w.file.Write(b)
	w.hash.Write(b[:n])
	w.written += int64(n)
	return n, err
}

// pipeSize is what the sentry may be ahead: of a small pipe each page would be waited for.
const pipeSize = 1 << 20

// receive writes what the source writes. An error on either side ends the other one: the sentry
// gets EPIPE, with which it resumes its sandbox.
func receive(ctx context.Context, from Source, to io.Writer) error {
	r, w, err := pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	received := make(chan error, 1)
	go func() {
		err := copyAll(to, r)
		if err != nil {
			r.Close() // the sentry must not wait for a reader
		}
		received <- err
	}()
	sent := from.Write(ctx, true, w)
	w.Close()
	if sent != nil {
		r.Close() // perhaps it still writes
	} else if err := r.SetReadDeadline(time.Now()); err != nil {
		// All of it is in the pipe: who has a copy of the other end is not waited for.
		_ = r.Close() // or it would be
	}
	switch err := <-received; {
	case err != nil && (sent == nil || !errors.Is(err, os.ErrClosed)):
		return fmt.Errorf("write state: %w", err)
	case sent != nil:
		return sent
	}
	return nil
}

// copyAll copies until the end of a pipe, or until its deadline and then what it still holds.
func copyAll(to io.Writer, r *os.File) error {
	b := make([]byte, pipeSize)
	for {
		n, err := r.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			n, err = readNow(r, b)
		}
		if n > 0 {
			werr := crashpoint.Do(crashpoint.SnapshotWrite, func() error { _, err := to.Write(b[:n]); return err })
			if werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readNow reads what is in a pipe whose deadline is over: io.EOF if that is nothing.
func readNow(r *os.File, b []byte) (n int, err error) {
	raw, err := r.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) {
		for {
			if n, err = unix.Read(int(fd), b); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	switch {
	case cerr != nil:
		return 0, cerr
	case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
		return 0, io.EOF
	}
	return max(n, 0), err
}

// pipe makes a pipe whose end for writing blocks: the sentry writes to it as to a file.
func pipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // a small one is slower
	err = unix.SetNonblock(fds[0], true)
	r, w = os.NewFile(uintptr(fds[0]), "state"), os.NewFile(uintptr(fds[1]), "state")
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make pipe: %w", err), r.Close(), w.Close())
	}
	return r, w, nil
}

func checksumOf(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// verify compares the state with its checksum. It leaves the offset of the file as it is, which
// the sentry begins at.
func verify(ctx context.Context, img *checkpoint.Image) error {
	h := sha256.New()
	b := make([]byte, 1<<20)
	for at := int64(0); at < img.Info.StateBytes; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := img.State.ReadAt(b[:min(int64(len(b)), img.Info.StateBytes-at)], at)
		h.Write(b[:n])
		at += int64(n)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: read state: %w", ErrDamaged, err)
		}
		if n == 0 {
			return fmt.Errorf("%w: its file is shorter than it was", ErrDamaged)
		}
	}
	if got := checksumOf(h); got != img.Info.Checksum {
		return fmt.Errorf("%w: its file has the checksum %s, and was written with %s", ErrDamaged, got, img.Info.Checksum)
	}
	return nil
}
