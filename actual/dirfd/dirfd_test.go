// SPDX-License-Identifier: Apache-2.0

package dirfd

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

// tree is a directory with a file, links to it, and a link that leads out.
func tree(t *testing.T) (string, *os.File) {
	t.Helper()
	top := t.TempDir()
	err := errors.Join(
		os.MkdirAll(top+"/m/d", 0o755), os.WriteFile(top+"/m/d/file", nil, 0o644), os.WriteFile(top+"/secret", nil, 0o644),
		os.Symlink("d/file", top+"/m/in"), os.Symlink("../secret", top+"/m/out"), os.Symlink("/d/file", top+"/m/abs"),
	)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(top + "/m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return top, dir
}

// What is followed is what was asked for, and no descriptor is inherited.
func TestOpen(t *testing.T) {
	t.Parallel()
	top, dir := tree(t)
	for _, c := range []struct {
		path    string
		resolve uint64
		want    error
	}{
		{"d/file", unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS, nil},
		{"in", unix.RESOLVE_BENEATH, nil},
		{"in", unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS, unix.ELOOP},
		{"out", unix.RESOLVE_BENEATH, unix.EXDEV},
		{"../secret", unix.RESOLVE_BENEATH, unix.EXDEV},
		{"abs", unix.RESOLVE_BENEATH, unix.EXDEV},
		{"abs", unix.RESOLVE_IN_ROOT, nil},
		{"../../d/file", unix.RESOLVE_IN_ROOT, nil},
		{"none", unix.RESOLVE_BENEATH, unix.ENOENT},
		{filepath.Join(top, "secret"), 0, nil},
	} {
		f, err := Open(int(dir.Fd()), c.path, unix.O_RDONLY, c.resolve)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s, %x: %v, expected %v", c.path, c.resolve, err, c.want)
		}
		if err != nil {
			continue
		}
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s is inherited: %x %v", c.path, flags, err)
		}
		f.Close()
	}
}

// Renames elsewhere make the kernel give up on "..": that is tried again. A lease
// that stays is not waited for without end.
func TestOpenTriesAgain(t *testing.T) {
	t.Parallel()
	top, dir := tree(t)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := errors.Join(os.Rename(top+"/secret", top+"/other"), os.Rename(top+"/other", top+"/secret")); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 5000 {
		f, err := Open(int(dir.Fd()), "d/../d/../d/file", unix.O_PATH, unix.RESOLVE_BENEATH)
		if err != nil {
			t.Error(err)
			break
		}
		f.Close()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(top+"/m/d/file", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := unix.FcntlInt(held.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(int(dir.Fd()), "d/file", unix.O_RDONLY|unix.O_NONBLOCK, unix.RESOLVE_BENEATH); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("opened against a lease: %v", err)
	}
}

// slow gives what it has in small pieces, as a file does that is written meanwhile.
type slow struct{ io.Reader }

func (s slow) Read(b []byte) (int, error) { return s.Reader.Read(b[:min(len(b), 3)]) }

// What is read is the whole file, whatever it was said to be long, and never more than
// one byte above the limit. A file of the size it had takes one call.
func TestReadRegular(t *testing.T) {
	t.Parallel()
	const limit = 10
	for n := range limit + 4 {
		text := strings.Repeat("x", n)
		for size := range int64(limit + 4) {
			for _, r := range []io.Reader{strings.NewReader(text), slow{strings.NewReader(text)}} {
				b, err := ReadRegular(r, size, limit)
				if want := min(n, limit+1); err != nil || len(b) != want && int64(len(b)) != size {
					t.Errorf("%d bytes, said to be %d: %d, %v", n, size, len(b), err)
				}
			}
		}
		calls := 0
		b, err := ReadRegular(counting{strings.NewReader(text), &calls}, int64(n), limit)
		if n > 0 && n <= limit && (err != nil || string(b) != text || calls != 1) {
			t.Errorf("%d bytes: %q, %v in %d calls", n, b, err, calls)
		}
	}
	broken := errors.New("broken")
	if _, err := ReadRegular(iotest.ErrReader(broken), 5, limit); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

type counting struct {
	io.Reader
	calls *int
}

func (c counting) Read(b []byte) (int, error) {
	*c.calls++
	return c.Reader.Read(b)
}
