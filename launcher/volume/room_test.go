// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/launcher/setup"
)

// smallState is a state directory on a disk of its own.
func smallState(t *testing.T, options string) (*os.File, string) {
	t.Helper()
	at := t.TempDir()
	must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "mode=0700,"+options))
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
	s, err := actual.OpenStore(at)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s.RootDir(), filepath.Join(at, Directory)
}

// watched calls something before each read.
type watched struct {
	r      io.Reader
	before func()
}

func (w watched) Read(b []byte) (int, error) {
	w.before()
	return w.r.Read(b)
}

// A restore ends before the disk of the state is full, whatever takes the room, and gives
// back all that it took.
func TestRestoreRoom(t *testing.T) {
	t.Parallel()
	many := func(n int, h func(i int) *tar.Header) []byte {
		var all []*tar.Header
		for i := range n {
			all = append(all, h(i))
		}
		return archiveOf(t, all...)
	}
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	must(t, w.WriteHeader(&tar.Header{Name: "large", Typeflag: tar.TypeReg, Size: 32 << 20, Mode: 0o600}))
	_, err := io.CopyN(w, &filler{}, 32<<20)
	must(t, errors.Join(err, w.Close()))
	ballast := func(t *testing.T, state string, n int) {
		t.Helper()
		f, err := os.OpenFile(state+"/../ballast", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		must(t, err)
		_, err = f.Write(make([]byte, n))
		must(t, errors.Join(err, f.Close()))
	}
	for name, c := range map[string]struct {
		options string
		archive []byte
		most    Limits
		before  int // bytes that are taken already
		others  int // bytes that somebody else writes during each read
		want    error
	}{
		"a large file":            {"size=8m", data.Bytes(), Limits{}, 0, 0, ErrArchive},
		"one that may be":         {"size=8m", data.Bytes(), Limits{Bytes: 1 << 40}, 0, 0, room.ErrNone},
		"many files of a byte":    {"size=2m", manyOf(t, 4000), Limits{}, 0, 0, room.ErrNone},
		"directories":             {"size=64m,nr_inodes=300", many(1000, func(i int) *tar.Header { return &tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeDir, Mode: 0o700} }), Limits{}, 0, 0, ErrArchive},
		"directories that may be": {"size=64m,nr_inodes=300", many(1000, func(i int) *tar.Header { return &tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeDir, Mode: 0o700} }), Limits{Files: 1 << 40}, 0, 0, room.ErrNone},
		"directories on the way": {"size=64m,nr_inodes=300", many(40, func(i int) *tar.Header {
			return &tar.Header{Name: fmt.Sprintf("%d/%s", i, strings.Repeat("d/", 20)), Typeflag: tar.TypeDir, Mode: 0o700}
		}), Limits{}, 0, 0, room.ErrNone},
		"long links": {"size=8m", many(4000, func(i int) *tar.Header {
			return &tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("l", 4000), Mode: 0o777}
		}), Limits{}, 0, 0, room.ErrNone},
		"others write":     {"size=64m", data.Bytes(), Limits{}, 0, 32 << 10, room.ErrNone},
		"no room at all":   {"size=8m", many(1, func(int) *tar.Header { return &tar.Header{Name: "a", Mode: 0o600} }), Limits{}, 7900 << 10, 0, room.ErrNone},
		"what there is":    {"size=8m", many(1, func(int) *tar.Header { return &tar.Header{Name: "a", Mode: 0o600} }), Limits{}, 5 << 20, 0, nil},
		"only the largest": {"size=8m", many(1, func(int) *tar.Header { return &tar.Header{Name: "a", Size: 7500 << 10} }), Limits{}, 0, 0, ErrArchive},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, path := smallState(t, c.options)
			s, err := Open(dir)
			must(t, err)
			defer s.Close()
			ballast(t, path, c.before)
			look := func() (st unix.Statfs_t) {
				must(t, unix.Fstatfs(int(dir.Fd()), &st))
				return st
			}
			begin := look()
			lowest, lowestFiles := begin.Bavail, begin.Ffree
			others := uint64(0)
			r := watched{bytes.NewReader(c.archive), func() {
				st := look()
				lowest, lowestFiles = min(lowest, st.Bavail), min(lowestFiles, st.Ffree)
				if kept := st.Blocks / 10; c.others > 0 && st.Bavail > kept+uint64(c.others)/uint64(st.Bsize) {
					ballast(t, path, c.others)
					others += uint64(c.others) / uint64(st.Bsize)
				}
			}}
			err = s.Restore(t.Context(), "v", r, c.most)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%v, expected %v", err, c.want)
			}
			if c.before == 0 && (lowest < begin.Blocks/20 || lowestFiles < begin.Files/20) {
				t.Errorf("%d of %d blocks and %d of %d files were left", lowest, begin.Blocks, lowestFiles, begin.Files)
			}
			if c.want == nil {
				return
			}
			for _, d := range []string{path, filepath.Join(filepath.Dir(path), actual.TrashDir)} {
				if left, err := os.ReadDir(d); err != nil || len(left) > 0 {
					t.Errorf("left in %s: %v %v", d, left, err)
				}
			}
			if end := look(); end.Bavail+others != begin.Bavail || end.Ffree+min(1, others) < begin.Ffree {
				t.Errorf("%d blocks and %d files are free, before %d and %d", end.Bavail, end.Ffree, begin.Bavail, begin.Ffree)
			}
		})
	}
}

// manyOf is an archive of files that take a page each.
func manyOf(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range n {
		must(t, w.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeReg, Size: 1, Mode: 0o600}))
		_, err := w.Write([]byte("x"))
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// What a restore that was killed has left becomes no part of a volume: the next start makes a
// new one, the next restore takes its place, and a daemon that starts removes it.
func TestRestoreKilled(t *testing.T) {
	t.Parallel()
	archive := archiveOf(t, &tar.Header{Name: "whole", Mode: 0o644})
	for name, c := range map[string]struct {
		next func(t *testing.T, dir *os.File, s *Store) error
		want string // what is in the volume
	}{
		"a start": {func(t *testing.T, dir *os.File, _ *Store) error {
			t.Helper()
			o, err := OpenAll(t.Context(), dir, with(setup.Source{Volume: "v"}), "web")
			if err == nil {
				o.Close()
			}
			return err
		}, ""},
		"a restore": {func(t *testing.T, _ *os.File, s *Store) error {
			t.Helper()
			return s.Restore(t.Context(), "v", bytes.NewReader(archive), Limits{})
		}, "whole"},
		"a daemon, and a start": {func(t *testing.T, dir *os.File, _ *Store) error {
			t.Helper()
			err := Sweep(t.Context(), dir)
			o, serr := OpenAll(t.Context(), dir, with(setup.Source{Volume: "v"}), "web")
			if serr == nil {
				o.Close()
			}
			return errors.Join(err, serr)
		}, ""},
		"rm, and a restore": {func(t *testing.T, _ *os.File, s *Store) error {
			t.Helper()
			err := s.Remove(t.Context(), "v", func() error { return nil })
			return errors.Join(err, s.Restore(t.Context(), "v", bytes.NewReader(archive), Limits{}))
		}, "whole"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, path := state(t)
			s, err := Open(dir)
			must(t, err)
			defer s.Close()
			must(t, os.MkdirAll(path+"/v/data/half/of", 0o700))
			must(t, os.WriteFile(path+"/v/data/half/file", []byte("x"), 0o600))
			must(t, os.WriteFile(path+"/v/"+metaFile, []byte(`{"version":1,"name":"v","id":"x","restoring":true}`), 0o600))
			if e, err := s.Look("v"); err != nil || e.Problem == "" {
				t.Errorf("half a volume is one: %+v %v", e, err)
			}
			if _, err := s.Backup(t.Context(), "v", io.Discard); !errors.Is(err, errIncomplete) {
				t.Errorf("half a volume was backed up: %v", err)
			}
			must(t, c.next(t, dir, s))
			if e, err := s.Look("v"); err != nil || e.Problem != "" || e.Restoring {
				t.Errorf("%+v %v", e, err)
			}
			names, err := os.ReadDir(path + "/v/data")
			must(t, err)
			var got []string
			for _, n := range names {
				got = append(got, n.Name())
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("it holds %q, expected %q", got, c.want)
			}
			if beside, err := os.ReadDir(path + "/v"); err != nil || len(beside) != 2 {
				t.Errorf("beside the data: %v %v", beside, err)
			}
		})
	}
}
