// SPDX-License-Identifier: Apache-2.0

package trustedfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
)

// ID changes when a file is written or replaced.
type ID struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// IDOf is the ID of a file.
func IDOf(st *unix.Stat_t) ID {
	return ID{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// Lease keeps writers out of a file while it is read. writing says that
// somebody has it open for writing: the kernel tells, exactly, by refusing a
// read lease. Where there are no leases (another owner, a network filesystem) a
// file is taken to be written as long as its last change is not settle ago.
func Lease(file int, st *unix.Stat_t, settle time.Duration) (release func(), writing bool) {
	fd := uintptr(file)
	_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK)
	switch {
	case err == nil:
		// A writer that comes meanwhile waits in its open until this.
		return func() { _, _ = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK) }, false
	case errors.Is(err, unix.EAGAIN):
		return nil, true
	}
	age := time.Since(time.Unix(st.Mtim.Unix()))
	return func() {}, age >= 0 && age < settle
}

// ErrWriting says that somebody has the file open for writing.
var ErrWriting = errors.New("it is being written")

// Read reads a file of at most limit bytes, and one byte of what is more, while nobody
// writes it.
func Read(f *os.File, st *unix.Stat_t, settle time.Duration, limit int64) ([]byte, error) {
	release, writing := Lease(int(f.Fd()), st, settle)
	if writing {
		return nil, ErrWriting
	}
	defer release()
	return dirfd.ReadRegular(f, st.Size, limit)
}

// Way returns every link that a clean absolute path leads through, by its own path,
// and at last where it leads to: who may write one of these decides what is there.
func Way(p string) []string {
	var links []string
	at, todo := "/", strings.Split(p, "/")
	for len(todo) > 0 {
		next := filepath.Join(at, todo[0])
		todo = todo[1:]
		target, err := os.Readlink(next)
		if err != nil || len(links) == maxLinks {
			at = next
			continue
		}
		links = append(links, next)
		if filepath.IsAbs(target) {
			at = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return append(links, at)
}
