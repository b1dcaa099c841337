// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/setup"
)

// The daemon walks a volume when its owner changes: what a sandbox puts into one directory
// must not fill the daemon's memory.
func TestWalkMemory(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	must(t, err)
	defer dir.Close()
	const files = 20_000
	tail := strings.Repeat("x", 200)
	for i := range files {
		fd, err := unix.Openat(int(dir.Fd()), fmt.Sprintf("%06d%s", i, tail), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		must(t, err)
		must(t, unix.Close(fd))
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, seen := heap(), 0
	must(t, walk(t.Context(), dir, func(*entry) error {
		if seen++; seen == 2 {
			if now := heap(); now > before+1<<20 {
				t.Errorf("%d bytes for one directory", now-before)
			}
		}
		return nil
	}))
	if seen != files+1 {
		t.Errorf("%d files were seen, expected %d", seen, files+1)
	}
}

// A file that the host has mounted in a volume is no part of it: it is not given away, and
// not in a backup, which tells.
func TestMountedFile(t *testing.T) {
	dir, path := state(t)
	data := path + "/v/data"
	must(t, os.MkdirAll(data, 0o755))
	must(t, os.WriteFile(data+"/a", nil, 0o600))
	must(t, os.WriteFile(data+"/z", nil, 0o600))
	outside := t.TempDir() + "/secret"
	must(t, os.WriteFile(outside, []byte("secret"), 0o600))
	must(t, unix.Mount(outside, data+"/a", "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(data+"/a", unix.MNT_DETACH) })
	five := uint32(5)
	o, err := start(t, dir, with(setup.Source{Volume: "v", Owner: &desired.Ownership{UID: &five, When: desired.OwnershipMismatch}}))
	must(t, err)
	o.Close()
	if got := ownerAt(t, outside) + " " + ownerAt(t, data+"/z"); got != "0:0 0600 5:0 0600" {
		t.Errorf("owners: %s", got)
	}
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	var b bytes.Buffer
	r, err := s.Backup(t.Context(), "v", &b)
	if err != nil || r.Skipped != 1 || bytes.Contains(b.Bytes(), []byte("secret")) {
		t.Errorf("%+v %v", r, err)
	}
}

// A start that is killed right after it has made a directory of a subPath is taken up by the
// next one. What a sandbox has there is left as it is.
func TestSubPathResumes(t *testing.T) {
	t.Parallel()
	five, mode := uint32(5), desired.FileMode("0750")
	own := &desired.Ownership{UID: &five, GID: &five, Mode: mode}
	for name, c := range map[string]struct {
		make func(data string) error
		want string
	}{
		"just made":      {func(d string) error { return os.Mkdir(d+"/a", 0) }, "5:5 0750"},
		"made and given": {func(d string) error { return errors.Join(os.Mkdir(d+"/a", 0), os.Chown(d+"/a", 5, 5)) }, "5:5 0750"},
		"made in another's": {func(d string) error {
			return errors.Join(unix.Chmod(d, 0o2755), os.Chown(d, 7, 7), os.Mkdir(d+"/a", 0))
		}, "5:5 0750"},
		"somebody's":           {func(d string) error { return os.Mkdir(d+"/a", 0o700) }, "0:0 0700"},
		"somebody's, and full": {func(d string) error { return os.MkdirAll(d+"/a/x", 0) }, "0:0 0000"},
	} {
		dir, path := state(t)
		data := path + "/v/data"
		must(t, os.MkdirAll(data, 0o755))
		must(t, os.WriteFile(data+"/mine", nil, 0o600))
		must(t, c.make(data))
		o, err := start(t, dir, with(setup.Source{Volume: "v", SubPath: "a", Owner: own}))
		must(t, err)
		o.Close()
		if got := ownerAt(t, data+"/a"); got != c.want {
			t.Errorf("%s: it is %s, expected %s", name, got, c.want)
		}
	}
}

// listed are the entries of an archive, but for the times of directories.
func listed(t *testing.T, archive []byte) (out []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		must(t, err)
		out = append(out, fmt.Sprintf("%q %c %o %d:%d %d %q", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.Linkname))
	}
}

// Whatever a sandbox has made of its volume, a restore takes the backup of it.
func TestRestoreTakes(t *testing.T) {
	t.Parallel()
	deep := func(t *testing.T, data, name string, depth int) {
		t.Helper()
		at, err := os.Open(data)
		must(t, err)
		for range depth {
			must(t, unix.Mkdirat(int(at.Fd()), name, 0o755))
			next, err := openDir(at, name, unix.O_RDONLY)
			must(t, err)
			at.Close()
			at = next
		}
		put(t, at, "file", "x")
		must(t, unix.Linkat(int(at.Fd()), "file", int(at.Fd()), "link", 0))
		at.Close()
	}
	hole := func(t *testing.T, path string) {
		t.Helper()
		must(t, os.WriteFile(path, []byte("x"), 0o600))
		must(t, os.Truncate(path, 1<<20))
	}
	for name, fill := range map[string]func(t *testing.T, data string){
		"long paths":        func(t *testing.T, d string) { deep(t, d, strings.Repeat("n", 250), 40) },
		"as deep as may be": func(t *testing.T, d string) { deep(t, d, "d", maxDepth) },
		"names of the tar's own": func(t *testing.T, d string) {
			hole(t, d+"/\x01NU.sparse.a")
			hole(t, d+"/GNU.sparse.a")
			hole(t, d+"/12 \x01NU.sparse.name=b")
		},
		"a fifo for all": func(t *testing.T, d string) {
			must(t, unix.Mkfifo(d+"/fifo", 0o600))
			must(t, os.Chmod(d+"/fifo", 0o666))
		},
		"closed directories": func(t *testing.T, d string) {
			must(t, os.MkdirAll(d+"/a/b", 0o755))
			put(t, must2(os.Open(d+"/a/b")), "file", "x")
			must(t, os.Chmod(d+"/a/b", 0))
			must(t, os.Chmod(d+"/a", 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, path := state(t)
			o, err := start(t, dir, with(setup.Source{Volume: "v"}))
			must(t, err)
			o.Close()
			fill(t, path+"/v/data")
			s, err := Open(dir)
			must(t, err)
			defer s.Close()
			archive := backedUp(t, s, "v")
			other, _ := state(t)
			s, err = Open(other)
			must(t, err)
			defer s.Close()
			must(t, s.Restore(t.Context(), "v", bytes.NewReader(archive), Limits{}))
			if got, want := listed(t, backedUp(t, s, "v")), listed(t, archive); !slices.Equal(got, want) {
				t.Errorf("restored\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A file of very many parts has fewer in an archive: no reader takes a list of more than a
// megabyte. The smallest holes are given up, and no part is lost.
func TestManyParts(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, mostSegments, mostSegments + 1, 4 * mostSegments} {
		var parts []segment
		step := int64(math.MaxInt64-1) / int64(n+1)
		for i := range n {
			parts = append(parts, segment{int64(i) * step, step - 1 - int64(i%3)*1000})
		}
		got := fewer(slices.Clone(parts))
		if len(got) > mostSegments || len(got) != min(n, mostSegments) {
			t.Errorf("%d parts became %d", n, len(got))
		}
		i := 0
		for _, p := range parts {
			for got[i].at+got[i].size < p.at+p.size {
				i++
			}
			if p.at < got[i].at {
				t.Fatalf("%d parts: %v is lost", n, p)
			}
		}
		var buf bytes.Buffer
		b := &backup{w: &buf, tar: tar.NewWriter(&buf)}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "./f", Size: math.MaxInt64 - 1, Format: tar.FormatPAX, PAXRecords: map[string]string{}}
		_, _, err := b.sparse(h, got)
		must(t, err)
		if h, err := tar.NewReader(&buf).Next(); err != nil || h.Size != math.MaxInt64-1 || h.Name != "./f" {
			t.Errorf("%d parts: %+v %v", n, h, err)
		}
	}
}

// cancels ends something when it writes.
type cancels struct {
	cancel func()
	n      int64
}

func (c *cancels) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	if c.n > 64<<10 {
		c.cancel()
	}
	return len(b), nil
}

// Who ends a backup or a restore does not wait for the end of one file.
func TestArchiveCancelled(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	o, err := start(t, dir, with(setup.Source{Volume: "v"}))
	must(t, err)
	o.Close()
	f, err := os.Create(path + "/v/data/large")
	must(t, err)
	_, err = io.CopyN(f, &filler{}, 16<<20)
	must(t, errors.Join(err, f.Close()))
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	w := &cancels{cancel: cancel}
	if _, err := s.Backup(ctx, "v", w); !errors.Is(err, context.Canceled) || w.n > 4<<20 {
		t.Errorf("%v after %d bytes", err, w.n)
	}
	archive := backedUp(t, s, "v")
	ctx, cancel = context.WithCancel(t.Context())
	w = &cancels{cancel: cancel}
	if err := s.Restore(ctx, "w", io.TeeReader(bytes.NewReader(archive), w), Limits{}); !errors.Is(err, context.Canceled) || w.n > 4<<20 {
		t.Errorf("%v after %d bytes", err, w.n)
	}
}

// filler is no zeros.
type filler struct{}

func (*filler) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// What is no volume, or none any more, can be removed like one.
func TestRemoveDamaged(t *testing.T) {
	t.Parallel()
	for name, meta := range map[string]string{"none": "", "damaged": `{"ver`, "a later version": `{"version":9,"name":"v"}`, "of another": `{"version":1,"name":"w"}`} {
		dir, path := state(t)
		s, err := Open(dir)
		must(t, err)
		defer s.Close()
		must(t, os.MkdirAll(path+"/v/data", 0o700))
		must(t, os.WriteFile(path+"/v/data/x", nil, 0o600))
		if meta != "" {
			must(t, os.WriteFile(path+"/v/"+metaFile, []byte(meta), 0o600))
		}
		used := errors.New("in use")
		if err := s.Remove(t.Context(), "v", func() error { return used }); !errors.Is(err, used) {
			t.Errorf("%s: removed although it is used: %v", name, err)
		}
		if err := s.Remove(t.Context(), "v", func() error { return nil }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(path, "v")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: it is still there: %v", name, err)
		}
	}
}

// A program that has a volume and was stopped holds no worker of the daemon.
func TestLockWaits(t *testing.T) {
	t.Parallel()
	dir, _ := state(t)
	st := with(setup.Source{Volume: "v"})
	o, err := start(t, dir, st)
	must(t, err)
	o.Close()
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	v, err := s.Find(t.Context(), "v", unix.LOCK_EX)
	must(t, err)
	waits := 0
	ctx, cancel := operation.New(t.Context(), func() { waits++ })
	defer cancel(nil)
	if _, err := OpenAll(ctx, dir, st, "web"); !errors.Is(err, ErrBusy) || waits == 0 {
		t.Errorf("%v, and it waited %d times", err, waits)
	}
	v.Close()
	waits = 0
	o, err = OpenAll(ctx, dir, st, "web")
	must(t, err)
	o.Close()
	if waits != 0 {
		t.Errorf("it waited %d times for nothing", waits)
	}
}
