// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/launcher/tarend"
)

// restored restores an archive into a directory, within bounds.
func restored(ctx context.Context, dir *os.File, archive []byte) error {
	u := &unpacking{ctx: ctx, to: dir, left: Limits{Bytes: 1 << 20, Files: 200}, disk: room.NewGauge(dir)}
	end := &tarend.Reader{From: bytes.NewReader(archive)}
	err := u.all(tar.NewReader(end))
	if err == nil && !end.Ends() {
		err = errCut
	}
	return err
}

// FuzzRestore: whatever an archive has, nothing outside of the volume is made or changed, and
// what was restored can be backed up and restored again.
func FuzzRestore(f *testing.F) {
	for _, c := range hostileArchives() {
		f.Add(c.archive)
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		top := t.TempDir()
		must(t, os.Mkdir(top+"/in", 0o700))
		must(t, os.Mkdir(top+"/again", 0o700))
		must(t, os.WriteFile(top+"/secret", []byte("secret"), 0o600))
		secret, err := os.Stat(top + "/secret")
		must(t, err)
		in, err := os.Open(top + "/in")
		must(t, err)
		defer in.Close()
		// Directories that nobody may enter would stay: this may not be run by root.
		err = restored(t.Context(), in, archive)
		if entries, rerr := os.ReadDir(top); rerr != nil || len(entries) != 3 {
			t.Errorf("outside: %v %v", entries, rerr)
		}
		now, serr := os.Stat(top + "/secret")
		must(t, serr)
		if now.Mode() != secret.Mode() || !now.ModTime().Equal(secret.ModTime()) || now.Size() != 6 {
			t.Errorf("outside: %v became %v", secret, now)
		}
		if err != nil {
			return
		}
		backup := func(dir *os.File) []byte {
			var b bytes.Buffer
			out := &backup{w: &b, tar: tar.NewWriter(&b), links: map[uint64]string{}}
			must(t, walk(t.Context(), dir, out.add))
			must(t, out.tar.Close())
			return b.Bytes()
		}
		first := backup(in)
		again, err := os.Open(top + "/again")
		must(t, err)
		defer again.Close()
		if err := restored(t.Context(), again, first); err != nil {
			t.Fatalf("a backup is not restored: %v", err)
		}
		if got, want := listed(t, backup(again)), listed(t, first); !slices.Equal(got, want) {
			t.Errorf("restored\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// FuzzMeta: what is read of a volume is about this volume and of a version that is known, and
// errors hold nothing that a terminal obeys.
func FuzzMeta(f *testing.F) {
	f.Add([]byte(`{"version":1,"name":"v","id":"x","created":"2026-01-02T03:04:05Z","createdFor":"web"}`))
	f.Add([]byte(`{"version":1,"name":"v","restoring":true}`))
	f.Add([]byte(`{"version":1,"name":"w\u001b[2J"}`))
	f.Add([]byte(`{"version":2,"name":"v"}`))
	f.Add([]byte(`{"version":1e300,"created":"9"}`))
	f.Add([]byte(`[`))
	dir := f.TempDir()
	s, err := actual.OpenStore(dir + "/s")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	store, err := Open(s.RootDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(store.Close)
	at := dir + "/s/" + Directory + "/v"
	f.Fuzz(func(t *testing.T, b []byte) {
		must(t, os.MkdirAll(at+"/data", 0o700))
		for _, name := range []string{metaFile, progressFile} {
			must(t, os.WriteFile(at+"/"+name, b, 0o600))
		}
		e, err := store.Look("v")
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b\x07\r") {
				t.Errorf("%q", err)
			}
		} else if e.Name != "v" || e.Version != metaVersion || e.Restoring != (e.Problem != "") {
			t.Errorf("%+v", e)
		}
		v, ferr := store.Find(t.Context(), "v", 0x1)
		if ferr == nil {
			v.Close()
		}
		if (ferr == nil) != (err == nil && e.Problem == "") {
			t.Errorf("looked at: %+v %v; found: %v", e, err, ferr)
		}
		// What can't be read is nobody's to remove.
		if names, err := store.Unfinished(t.Context()); err != nil || len(names) > 0 && (e == nil || !e.Restoring) {
			t.Errorf("%v %v: %+v", names, err, e)
		}
		if err := store.Remove(t.Context(), "v", func() error { return nil }); err != nil && !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
	})
}
