// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// reserveIn makes a reserve below a directory.
func reserveIn(t *testing.T, dir *os.File, count int, size int64) *Reserve {
	t.Helper()
	must(t, unix.Mkdirat(int(dir.Fd()), "reserve", 0o700))
	fd, err := unix.Openat(int(dir.Fd()), "reserve", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	r := NewReserve(os.NewFile(uintptr(fd), "reserve"))
	t.Cleanup(func() { r.Close() })
	n, err := r.Fill(count, size)
	must(t, err)
	if n != count {
		t.Fatalf("%d of %d", n, count)
	}
	return r
}

// fillBytes takes all that is left of a disk.
func fillBytes(t *testing.T, dir *os.File) {
	t.Helper()
	fd, err := unix.Openat(int(dir.Fd()), "ballast", unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.ENOSPC) {
		return
	}
	must(t, err)
	defer unix.Close(fd)
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
}

// fillFiles takes all of its inodes.
func fillFiles(t *testing.T, dir *os.File) {
	t.Helper()
	for i := 0; ; i++ {
		err := unix.Mknodat(int(dir.Fd()), fmt.Sprintf("file-%d", i), unix.S_IFREG|0o600, 0)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return
		}
	}
}

// On a disk without room a file can be replaced as often as one likes, also while
// whatever becomes free is taken at once.
func TestReserve(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		opts []string
		fill func(*testing.T, *os.File)
	}{
		"bytes":  {[]string{"size=256k"}, fillBytes},
		"inodes": {[]string{"nr_inodes=40"}, fillFiles},
		"both": {[]string{"size=256k", "nr_inodes=40"}, func(t *testing.T, d *os.File) {
			fillBytes(t, d)
			fillFiles(t, d)
		}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := tmpfs(t, c.opts...)
			r := reserveIn(t, dir, 3, 16<<10)
			must(t, Write(dir, "record", bytes.Repeat([]byte("old"), 1000), 0o600))
			c.fill(t, dir)
			for i := range 50 {
				text := bytes.Repeat(fmt.Appendf(nil, "%04d", i), 1000)
				if err := Write(dir, "record", text, 0o600); !NoSpace(err) {
					t.Fatalf("there is room: %v", err)
				}
				if err := r.Write(dir, "record", text, 0o600); err != nil {
					t.Fatalf("write %d: %v", i, err)
				}
				if content(t, dir, "record") != string(text) {
					t.Fatalf("write %d is not what was written", i)
				}
				c.fill(t, dir)
			}
			// What is too long for the reserve fails, and the old one stays.
			before := content(t, dir, "record")
			if what != "inodes" {
				if err := r.Write(dir, "record", make([]byte, 200<<10), 0o600); !NoSpace(err) {
					t.Errorf("too long: %v", err)
				}
				if content(t, dir, "record") != before {
					t.Error("the old content is gone")
				}
			}
		})
	}
}

// A file that is not there yet uses up a slot, and when none is left that is told.
func TestReserveNewFiles(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "size=256k")
	r := reserveIn(t, dir, 3, 16<<10)
	fillBytes(t, dir)
	for i := range 3 {
		must(t, r.Write(dir, fmt.Sprintf("request-%d", i), []byte("{}"), 0o600))
	}
	if err := r.Write(dir, "request-3", []byte("{}"), 0o600); !NoSpace(err) || !strings.Contains(err.Error(), "used up") {
		t.Errorf("%v", err)
	}
	// It is filled again when there is room.
	must(t, unix.Unlinkat(int(dir.Fd()), "ballast", 0))
	n, err := r.Fill(3, 16<<10)
	if err != nil || n != 3 {
		t.Fatalf("%d: %v", n, err)
	}
	fillBytes(t, dir)
	must(t, r.Write(dir, "request-3", []byte("{}"), 0o600))
}

// What is no slot, or is another's for the moment, is not used.
func TestReserveOthers(t *testing.T) {
	t.Parallel()
	_, dir := tempDir(t)
	r := reserveIn(t, dir, 1, 4096)
	slot := func(n string) string { return slotPrefix + n }
	must(t, unix.Mkfifoat(int(r.dir.Fd()), slot("10"), 0o600))
	must(t, unix.Symlinkat("slot-00", int(r.dir.Fd()), slot("11")))
	must(t, unix.Mkdirat(int(r.dir.Fd()), slot("12"), 0o700))
	must(t, unix.Linkat(int(r.dir.Fd()), slot("00"), int(dir.Fd()), "second-name", 0))
	must(t, Write(dir, "f", []byte("old"), 0o600))
	if err := r.Write(dir, "f", []byte("new"), 0o600); err == nil {
		t.Error("written to what is no slot")
	}
	must(t, unix.Unlinkat(int(dir.Fd()), "second-name", 0))
	fd, err := unix.Openat(int(r.dir.Fd()), slot("00"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Flock(fd, unix.LOCK_EX))
	if err := r.Write(dir, "f", []byte("new"), 0o600); !NoSpace(err) {
		t.Errorf("a slot that another uses: %v", err)
	}
	unix.Close(fd)
	must(t, r.Write(dir, "f", []byte("new"), 0o600))
	if content(t, dir, "f") != "new" {
		t.Error(content(t, dir, "f"))
	}
	for name, want := range map[string]error{"reserve": ErrNotRegular} {
		if err := r.Write(dir, name, nil, 0o600); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Write(dir, "../f", nil, 0o600); err == nil {
		t.Error("a path was written")
	}
}

// Many writers at once get each a slot or are told that there is none.
func TestReserveConcurrent(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "size=1m")
	r := reserveIn(t, dir, 4, 16<<10)
	for i := range 8 {
		must(t, Write(dir, fmt.Sprint(i), []byte("old"), 0o600))
	}
	fillBytes(t, dir)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				text := fmt.Sprintf("%d-%d", i, j)
				err := r.Write(dir, fmt.Sprint(i), []byte(text), 0o600)
				if err != nil && !NoSpace(err) && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
				if got, rerr := readAt(dir, fmt.Sprint(i)); rerr != nil || err == nil && string(got) != text {
					t.Errorf("%q, expected %q: %v", got, text, rerr)
				}
			}
		})
	}
	wg.Wait()
	if ns := names(t, r.dir); len(ns) != 4 {
		t.Errorf("the reserve is %v", ns)
	}
}

func TestNoSpaceErrors(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{unix.ENOSPC: true, unix.EDQUOT: true, unix.EROFS: false, unix.EIO: false} {
		if got := NoSpace(fmt.Errorf("write: %w", err)); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}
