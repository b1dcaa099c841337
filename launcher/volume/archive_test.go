// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/setup"
)

// describe lists a tree: everything that a backup keeps.
func describe(t *testing.T, top string) (out []string) {
	t.Helper()
	first := map[uint64]string{}
	must(t, filepath.WalkDir(top, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, p)
		line := fmt.Sprintf("%s %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x %d.%d", st.Size, b[:min(len(b), 64)], st.Mtim.Sec, st.Mtim.Nsec)
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			line += " as " + first[st.Ino]
			value := make([]byte, 100)
			if n, err := unix.Lgetxattr(p, "user.note", value); err == nil {
				line += " note " + string(value[:n])
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " to " + target
		}
		out = append(out, line)
		return nil
	}))
	return out
}

// fill makes a volume with everything that is hard to keep.
func fill(t *testing.T, data string) {
	t.Helper()
	must(t, os.MkdirAll(data+"/d/e", 0o750))
	must(t, os.MkdirAll(data+"/empty", 0o1777))
	long := strings.Repeat("long-", 40)
	must(t, os.WriteFile(data+"/d/"+long, []byte("x"), 0o600))
	must(t, os.WriteFile(data+"/plain", []byte("text\n"), 0o644))
	must(t, os.WriteFile(data+"/line\nbreak é \x01NU.sparse.", []byte("odd"), 0o644))
	must(t, os.WriteFile(data+"/setuid", []byte("p"), 0o755))
	must(t, os.Lchown(data+"/setuid", 999, 998))
	must(t, unix.Chmod(data+"/setuid", 0o4755))
	must(t, os.Link(data+"/plain", data+"/d/again"))
	must(t, os.Symlink("/etc/passwd", data+"/link"))
	must(t, os.Lchown(data+"/link", 5, 6))
	must(t, unix.Mkfifo(data+"/fifo", 0o600))
	if err := unix.Setxattr(data+"/plain", "user.note", []byte("a=b\nc"), 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatal(err)
	}
	for name, parts := range map[string][]int64{"sparse": {0, 5 << 20, 9 << 20}, "hole-first": {7 << 20}, "d/all-hole": nil} {
		f, err := os.Create(data + "/" + name)
		must(t, err)
		for _, at := range parts {
			_, err := f.WriteAt([]byte("data"), at)
			must(t, err)
		}
		must(t, f.Truncate(10<<20))
		must(t, f.Close())
	}
	must(t, os.Chtimes(data+"/plain", time.Unix(1e9, 123456789), time.Unix(1e9, 123456789)))
}

func backedUp(t *testing.T, s *Store, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	r, err := s.Backup(t.Context(), name, &b)
	must(t, err)
	if r.Changed != 0 || r.Skipped != 0 {
		t.Errorf("%+v", r)
	}
	return b.Bytes()
}

// What is restored is what was there, with holes, and GNU tar reads the same of it.
func TestBackupRestore(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	o, err := start(t, dir, with(setup.Source{Volume: "v"}))
	must(t, err)
	fill(t, path+"/v/data")
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	archive := backedUp(t, s, "v") // also while a sandbox is being started with it
	o.Close()
	if len(archive) > 1<<20 {
		t.Errorf("holes take room: %d bytes", len(archive))
	}
	must(t, s.Restore(t.Context(), "w", bytes.NewReader(archive), Limits{}))
	want := describe(t, path+"/v/data")
	if got := describe(t, path+"/w/data"); !slices.Equal(got, want) {
		t.Errorf("restored\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, name := range []string{"sparse", "hole-first", "d/all-hole"} {
		var st unix.Stat_t
		must(t, unix.Stat(path+"/w/data/"+name, &st))
		if st.Blocks*512 > 1<<20 {
			t.Errorf("%s has no holes any more: %d blocks", name, st.Blocks)
		}
	}
	if e, err := s.Look("w"); err != nil || e.Problem != "" || e.CreatedFor != "" {
		t.Errorf("%+v %v", e, err)
	}
	out := t.TempDir()
	must(t, os.WriteFile(out+".tar", archive, 0o600))
	cmd := exec.Command("tar", "--xattrs", "-xpf", out+".tar", "-C", out)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, b)
	}
	must(t, os.Remove(out+".tar"))
	if got := describe(t, out); !slices.Equal(got, want) {
		t.Errorf("tar has\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// archive is a tar of these.
func archiveOf(t *testing.T, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		must(t, w.WriteHeader(h))
		_, err := io.CopyN(w, zeros{}, h.Size)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// Nothing of an archive is outside of the volume, and nothing is left of one
// that is refused.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	must(t, os.WriteFile(outside+"/secret", []byte("x"), 0o600))
	entry := func(name string, kind byte, to string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: kind, Linkname: to, Mode: 0o644}
	}
	ours := &tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "x", PAXRecords: map[string]string{beginsRecord: "v"}, Format: tar.FormatPAX}
	deep := strings.Repeat("d/", maxDepth+2)
	for name, c := range map[string]struct {
		archive []byte
		most    Limits
		want    string
	}{
		"an absolute name":       {archiveOf(t, entry(outside+"/a", tar.TypeReg, "")), Limits{}, "leads out of the volume"},
		"a name that leads up":   {archiveOf(t, entry("../../a", tar.TypeReg, "")), Limits{}, "leads out of the volume"},
		"up, later":              {archiveOf(t, entry("a/../../../a", tar.TypeReg, "")), Limits{}, "leads out of the volume"},
		"up, and back":           {archiveOf(t, entry("a/../b", tar.TypeReg, "")), Limits{}, "leads out of the volume"},
		"a directory that is up": {archiveOf(t, entry("..", tar.TypeDir, "")), Limits{}, "leads out of the volume"},
		"through a link":         {archiveOf(t, entry("l", tar.TypeSymlink, outside), entry("l/a", tar.TypeReg, "")), Limits{}, "symbolic link"},
		"through a link, deep":   {archiveOf(t, entry("d/l", tar.TypeSymlink, "../.."), entry("d/l/a/b", tar.TypeReg, "")), Limits{}, "symbolic link"},
		"over a link":            {archiveOf(t, entry("l", tar.TypeSymlink, outside+"/new"), entry("l", tar.TypeReg, "")), Limits{}, "file exists"},
		"a directory for a link": {archiveOf(t, entry("l", tar.TypeSymlink, outside), entry("l", tar.TypeDir, "")), Limits{}, "symbolic link"},
		"a hard link out":        {archiveOf(t, entry("h", tar.TypeLink, outside+"/secret")), Limits{}, "leads out of the volume"},
		"a hard link up":         {archiveOf(t, entry("h", tar.TypeLink, "../../meta.json")), Limits{}, "leads out of the volume"},
		"by a link":              {archiveOf(t, entry("l", tar.TypeSymlink, outside), entry("h", tar.TypeLink, "l/secret")), Limits{}, "symbolic link"},
		"to a directory":         {archiveOf(t, entry("d", tar.TypeDir, ""), entry("h", tar.TypeLink, "d")), Limits{}, "hard link to a directory"},
		"to nothing":             {archiveOf(t, entry("h", tar.TypeLink, "none")), Limits{}, "it is a hard link to"},
		"a device":               {archiveOf(t, entry("c", tar.TypeChar, "")), Limits{}, "are not restored"},
		"a block device":         {archiveOf(t, entry("c", tar.TypeBlock, "")), Limits{}, "are not restored"},
		"the same twice":         {archiveOf(t, entry("a", tar.TypeReg, ""), entry("a", tar.TypeReg, "")), Limits{}, "file exists"},
		"a file for the volume":  {archiveOf(t, entry("./", tar.TypeSymlink, outside)), Limits{}, "the volume itself is a directory"},
		"too deep":               {archiveOf(t, entry(deep+"f", tar.TypeReg, "")), Limits{}, "directories are more than"},
		"too many":               {archiveOf(t, entry("a", tar.TypeReg, ""), entry("b", tar.TypeReg, "")), Limits{Files: 1}, "too many files"},
		"too large":              {archiveOf(t, &tar.Header{Name: "a", Size: 2000}), Limits{Bytes: 1999}, "larger than"},
		"too large together":     {archiveOf(t, &tar.Header{Name: "a", Size: 1500}, &tar.Header{Name: "b", Size: 1500}), Limits{Bytes: 2000}, "larger than"},
		"no tar":                 {bytes.Repeat([]byte("no tar at all "), 200), Limits{}, "the archive is refused"},
		"a disk":                 {append(make([]byte, 1024+56), "\x53\xef\x01\x00"...), Limits{}, "it is no tar: it begins with zeros"},
		"a disk, far behind":     {append(append(make([]byte, 5<<20), 'x'), make([]byte, 1<<20)...), Limits{}, "it is no tar: it begins with zeros"},
		"behind an empty tar":    {append(make([]byte, 10240), archiveOf(t, entry("a", tar.TypeReg, ""))...), Limits{}, "it is no tar: it begins with zeros"},
		"cut in a file":          {archiveOf(t, &tar.Header{Name: "a", Size: 5000})[:2000], Limits{}, "it was cut short"},
		"cut in a header":        {archiveOf(t, entry("a", tar.TypeReg, ""))[:300], Limits{}, "it was cut short"},
		"nothing at all":         {nil, Limits{}, "it was cut short"},
		"without its end":        {archiveOf(t, entry("a", tar.TypeReg, ""))[:block], Limits{}, "it was cut short"},
		"cut between others'":    {archiveOf(t, &tar.Header{Name: "a", Size: 100, Mode: 0o644}, entry("b", tar.TypeReg, ""))[:block], Limits{}, "it was cut short"},
		"cut between files":      {archiveOf(t, ours, entry("a", tar.TypeReg, "")), Limits{}, "it was cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, path := state(t)
			s, err := Open(dir)
			must(t, err)
			defer s.Close()
			err = s.Restore(t.Context(), "v", bytes.NewReader(c.archive), c.most)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, expected %q", err, c.want)
			}
			for _, d := range []string{path, filepath.Join(filepath.Dir(path), actual.TrashDir)} {
				if left, err := os.ReadDir(d); err != nil || len(left) > 0 {
					t.Errorf("left in %s: %v %v", d, left, err)
				}
			}
			if names, err := os.ReadDir(outside); err != nil || len(names) != 1 {
				t.Errorf("made outside: %v %v", names, err)
			}
		})
	}
	t.Cleanup(func() {
		var st unix.Stat_t
		if err := unix.Stat(outside+"/secret", &st); err != nil || st.Nlink != 1 || st.Mode&0o777 != 0o600 {
			t.Errorf("changed outside: %+v %v", st, err)
		}
	})
}

// A volume that is there is never changed, and one that somebody left unfinished is made
// afresh.
func TestRestoreBeside(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	archive := archiveOf(t, &tar.Header{Name: "a", Mode: 0o644})
	must(t, os.MkdirAll(path+"/mine/data", 0o700))
	must(t, os.WriteFile(path+"/mine/data/x", nil, 0o600))
	if err := s.Restore(t.Context(), "mine", bytes.NewReader(archive), Limits{}); !errors.Is(err, ErrExists) {
		t.Errorf("over files: %v", err)
	}
	must(t, os.MkdirAll(path+"/cut/data/half", 0o700))
	must(t, os.WriteFile(path+"/cut/"+metaFile, []byte(`{"version":1,"name":"cut","restoring":true}`), 0o600))
	must(t, s.Restore(t.Context(), "cut", bytes.NewReader(archive), Limits{}))
	if err := s.Restore(t.Context(), "cut", bytes.NewReader(archive), Limits{}); !errors.Is(err, ErrExists) {
		t.Errorf("over a volume: %v", err)
	}
	if got := describe(t, path+"/cut/data"); len(got) != 2 {
		t.Errorf("%v", got)
	}
	// Nobody starts with half of one, and who ends leaves nothing.
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- s.Restore(ctx, "slow", r, Limits{}) }()
	_, err = w.Write(archive[:block])
	must(t, err)
	if _, err := OpenAll(t.Context(), dir, with(setup.Source{Volume: "slow"}), "web"); !errors.Is(err, ErrBusy) {
		t.Errorf("started with half of a volume: %v", err)
	}
	cancel()
	must(t, w.Close())
	if err := <-done; err == nil {
		t.Error("a restore that was cancelled has ended well")
	}
	if _, err := os.Stat(path + "/slow"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// Files that are written, cut and removed while a backup reads them spoil themselves only.
func TestBackupBusy(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	_, err := start(t, dir, with(setup.Source{Volume: "v"}))
	must(t, err)
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	data := path + "/v/data"
	must(t, os.WriteFile(data+"/calm", []byte("calm"), 0o644))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			f := fmt.Sprintf("%s/f%d", data, i%7)
			_ = os.WriteFile(f, make([]byte, (i*7919)%200_000), 0o600)
			_ = os.Truncate(f, int64(i*31%1000))
			_ = os.Remove(fmt.Sprintf("%s/f%d", data, (i+3)%7))
			_ = unix.Mkfifo(fmt.Sprintf("%s/f%d", data, (i+3)%7), 0o600)
			_ = os.Remove(fmt.Sprintf("%s/f%d", data, (i+3)%7))
		}
	}()
	for i := range 30 {
		var b bytes.Buffer
		_, err := s.Backup(t.Context(), "v", &b)
		must(t, err)
		name := fmt.Sprintf("w%d", i)
		must(t, s.Restore(t.Context(), name, &b, Limits{}))
		if text, err := os.ReadFile(path + "/" + name + "/data/calm"); err != nil || string(text) != "calm" {
			t.Fatalf("%q %v", text, err)
		}
	}
	close(stop)
	<-done
}
