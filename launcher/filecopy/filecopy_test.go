// SPDX-License-Identifier: Apache-2.0

package filecopy

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func some() Options { return Options{Size: 1 << 20, Entries: 100, UID: -1, GID: -1} }

func fine() error { return nil }

// archive is a tar of headers; files have as many bytes as their size says.
func archive(t *testing.T, hs ...*tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1e9, 0)
		}
		must(t, w.WriteHeader(h))
		_, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
		must(t, err)
	}
	must(t, w.Close())
	return &b
}

func dir(name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o750}
}

func file(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o6755, Size: size}
}

func link(name, to string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}

func opened(t *testing.T, path string) *os.File {
	t.Helper()
	d, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// list is what is below a directory.
func list(t *testing.T, root string) string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		out = append(out, fmt.Sprintf("%s %s", rel, i.Mode()))
		return nil
	}))
	return strings.Join(out, "\n")
}

func TestExtract(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b := archive(t, dir("d"), dir("d/sub"), file("d/sub/f", 10), link("d/sub/l", "../sub/f"), link("d/l", "sub"), dir("d/sub/deep"))
	r, err := Extract(opened(t, root), "named", b, some(), fine)
	must(t, err)
	if r.Files != 2 && r.Files != 3 || r.Bytes != 10 {
		t.Errorf("%+v", r)
	}
	want := "named drwxr-x---\nnamed/l Lrwxrwxrwx\nnamed/sub drwxr-x---\nnamed/sub/deep drwxr-x---\nnamed/sub/f -rwxr-xr-x\nnamed/sub/l Lrwxrwxrwx"
	if got := list(t, root); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	st, err := os.Stat(root + "/named/sub")
	must(t, err)
	if st.ModTime().Unix() != 1e9 {
		t.Errorf("time %v", st.ModTime())
	}
}

// What a sandbox that was taken over can send: each is refused, and nothing is left, below
// the destination or elsewhere.
func TestExtractHostile(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a/", 300)
	for name, c := range map[string]struct {
		entries []*tar.Header
		want    string
	}{
		"up":                   {[]*tar.Header{file("../evil", 1)}, "leads elsewhere"},
		"up inside":            {[]*tar.Header{dir("d"), file("d/../../evil", 1)}, "leads elsewhere"},
		"absolute":             {[]*tar.Header{file("/evil", 1)}, "leads elsewhere"},
		"dot":                  {[]*tar.Header{dir(".")}, "leads elsewhere"},
		"empty component":      {[]*tar.Header{dir("d"), file("d//f", 1)}, "leads elsewhere"},
		"two":                  {[]*tar.Header{file("a", 1), file("b", 1)}, "not asked for"},
		"twice":                {[]*tar.Header{dir("d"), file("d/f", 1), file("d/f", 1)}, "exists"},
		"through a link":       {[]*tar.Header{dir("d"), dir("d/real"), link("d/l", "real"), file("d/l/evil", 1)}, "loop|symbolic"},
		"over a link":          {[]*tar.Header{dir("d"), link("d/l", "f"), file("d/l", 1)}, "exists"},
		"file as directory":    {[]*tar.Header{file("d", 1), file("d/f", 1)}, "not a directory"},
		"no directory":         {[]*tar.Header{file("d/f", 1)}, "not asked for|no such"},
		"device":               {[]*tar.Header{{Typeflag: tar.TypeChar, Name: "mem", Devmajor: 1, Devminor: 1}}, "neither a file"},
		"fifo":                 {[]*tar.Header{{Typeflag: tar.TypeFifo, Name: "p"}}, "neither a file"},
		"hard link":            {[]*tar.Header{dir("d"), {Typeflag: tar.TypeLink, Name: "d/h", Linkname: "/etc/passwd"}}, "neither a file"},
		"too large":            {[]*tar.Header{file("f", 1<<20+1)}, "--max-size"},
		"too large in all":     {[]*tar.Header{dir("d"), file("d/a", 1<<19), file("d/b", 1<<19), file("d/c", 1)}, "--max-size"},
		"too deep":             {[]*tar.Header{dir(long + "d")}, "directories in each other"},
		"long name":            {[]*tar.Header{file(strings.Repeat("n", 300), 1)}, "is none"},
		"long path":            {[]*tar.Header{dir(strings.Repeat(strings.Repeat("n", 200)+"/", 25))}, "a path of"},
		"escape sequences":     {[]*tar.Header{file("\x1b[2J/../x\x07", 1)}, "leads elsewhere"},
		"no owner":             {[]*tar.Header{{Typeflag: tar.TypeReg, Name: "f", Uid: 1<<32 - 1}}, "owner that is none"},
		"link that leads away": {[]*tar.Header{link("l", "/etc/passwd")}, "leads elsewhere; -L follows"},
		"nothing":              {nil, "has sent nothing"},
	} {
		root := t.TempDir()
		must(t, os.Mkdir(root+"/in", 0o755))
		_, err := Extract(opened(t, root+"/in"), "named", archive(t, c.entries...), some(), fine)
		matched := false
		for w := range strings.SplitSeq(c.want, "|") {
			matched = matched || err != nil && strings.Contains(err.Error(), w)
		}
		if !matched || strings.ContainsAny(err.Error(), "\x1b\x07") {
			t.Errorf("%s: %v", name, err)
		}
		if got := list(t, root); got != "in drwxr-xr-x" {
			t.Errorf("%s left:\n%s", name, got)
		}
	}
}

func TestExtractManyEntries(t *testing.T) {
	t.Parallel()
	var hs []*tar.Header
	hs = append(hs, dir("d"))
	for i := range 100 {
		hs = append(hs, file(fmt.Sprintf("d/%d", i), 0))
	}
	if _, err := Extract(opened(t, t.TempDir()), "n", archive(t, hs...), some(), fine); err == nil || !strings.Contains(err.Error(), "more than 100 files") {
		t.Errorf("%v", err)
	}
}

// A stream that is cut, random bytes, and a sentry that says at the end that it failed
// leave nothing.
func TestExtractCut(t *testing.T) {
	t.Parallel()
	whole := archive(t, dir("d"), file("d/f", 5000)).Bytes()
	for n := range len(whole) / 512 {
		root := t.TempDir()
		// The frames end where the tar does, or say that they were cut.
		_, err := Extract(opened(t, root), "n", io.MultiReader(bytes.NewReader(whole[:n*512+100]), iotestErr{}), some(), fine)
		if err == nil && n*512 < 5000 {
			t.Errorf("cut after %d bytes is taken", n*512)
		}
		if got := list(t, root); err != nil && got != "" {
			t.Errorf("left: %s", got)
		}
	}
	root := t.TempDir()
	failed := errors.New("failed in the sandbox")
	if _, err := Extract(opened(t, root), "n", bytes.NewReader(whole), some(), func() error { return failed }); !errors.Is(err, failed) || list(t, root) != "" {
		t.Errorf("%v, left %s", err, list(t, root))
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A file is replaced by a file, and nothing else by anything; links are not followed.
func TestPlace(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, os.WriteFile(root+"/canary", []byte("canary"), 0o600))
	must(t, os.WriteFile(root+"/old", []byte("old"), 0o600))
	must(t, os.Symlink("canary", root+"/link"))
	must(t, os.Mkdir(root+"/dir", 0o755))
	must(t, unix.Mkfifo(root+"/fifo", 0o600))
	for name, ok := range map[string]bool{"old": true, "link": false, "dir": false, "fifo": false, "new": true} {
		_, err := Extract(opened(t, root), name, archive(t, file("f", 3)), some(), fine)
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Extract(opened(t, root), "old", archive(t, dir("d")), some(), fine); err == nil {
		t.Error("a directory replaces a file")
	}
	if b, err := os.ReadFile(root + "/canary"); err != nil || string(b) != "canary" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestLeadsOut(t *testing.T) {
	t.Parallel()
	for to, out := range map[string]bool{
		"f": false, "../f": false, "../../f": true, "/etc": true, "sub/f": false, "sub/../f": true, "..": false, "../..": true, "./..//../x": true, ".": false,
	} {
		if got := leadsOut([]string{"top", "a", "link"}, to); got != out {
			t.Errorf("%s: %v", to, got)
		}
	}
	if !leadsOut([]string{"link"}, "f") {
		t.Error("a link alone leads to what is not copied")
	}
}

// What is rewritten has nothing of the sandbox's archive but what was checked.
func TestRewrite(t *testing.T) {
	t.Parallel()
	h := file("d/f", 3)
	h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "evil", "comment": "evil"}
	h.Uname, h.Uid = "evil", 7
	var b bytes.Buffer
	_, err := Rewrite(&b, archive(t, dir("d"), h), some(), fine)
	must(t, err)
	if strings.Contains(b.String(), "evil") {
		t.Error("records of the sandbox are passed on")
	}
	r := tar.NewReader(&b)
	for range 2 {
		n, err := r.Next()
		must(t, err)
		if n.Mode&^0o777 != 0 || n.Uid != 0 {
			t.Errorf("%+v", n)
		}
	}
	if _, err := Rewrite(io.Discard, archive(t, file("../x", 1)), some(), fine); err == nil {
		t.Error("a name that leads elsewhere is passed on")
	}
	for what, hs := range map[string][]*tar.Header{
		"below a link":          {dir("t"), dir("t/b"), link("t/a", "."), dir("t/a/b"), link("t/a/b/l", "../..")},
		"a link, then its name": {dir("t"), link("t/a", "."), dir("t/a")},
		"twice":                 {dir("t"), file("t/f", 1), file("t/f", 1)},
		"two tops":              {dir("t"), dir("u")},
		"no directory":          {dir("t"), file("t/d/f", 1)},
		"below a file":          {dir("t"), file("t/f", 1), file("t/f/g", 1)},
	} {
		if _, err := Rewrite(io.Discard, archive(t, hs...), some(), fine); err == nil {
			t.Errorf("%s: passed on", what)
		}
	}
}

// The owner of the directory around may give the name of the one for the copy to another:
// that one stays, with all that is in it.
func TestStageReplaced(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/precious/deep", 0o700))
	must(t, os.WriteFile(root+"/precious/deep/canary", []byte("canary"), 0o600))
	var name string
	swap := func() error {
		names, err := filepath.Glob(root + "/.sandboxctl-cp-*")
		if err != nil || len(names) != 1 {
			return fmt.Errorf("%v, %w", names, err)
		}
		name = names[0]
		return errors.Join(os.Rename(name, root+"/moved"), os.Rename(root+"/precious", name), errors.New("it fails"))
	}
	if _, err := Extract(opened(t, root), "new", archive(t, dir("d"), file("d/f", 3)), some(), swap); err == nil || !strings.Contains(err.Error(), "it fails") {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(name + "/deep/canary"); err != nil || string(b) != "canary" {
		t.Errorf("%q, %v", b, err)
	}
	if got := list(t, root+"/moved"); got != "" {
		t.Errorf("left: %s", got)
	}
}

// A tree goes into a tar and comes out of it.
func TestPack(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/src/sub", 0o755))
	must(t, os.WriteFile(root+"/src/sub/f", []byte("content"), 0o640))
	must(t, os.Symlink("/etc", root+"/src/sub/abs"))
	must(t, unix.Mkfifo(root+"/src/fifo", 0o600))
	var b bytes.Buffer
	r, err := Pack(&b, opened(t, root+"/src"), "named", some())
	must(t, err)
	if r.Skipped != 1 || r.Files != 2 {
		t.Errorf("%+v", r)
	}
	o := some()
	o.KeepLinks = true
	_, err = Extract(opened(t, root), "out", &b, o, fine)
	must(t, err)
	if got, err := os.ReadFile(root + "/out/sub/f"); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
	if to, err := os.Readlink(root + "/out/sub/abs"); err != nil || to != "/etc" {
		t.Errorf("%q, %v", to, err)
	}
}

func FuzzExtract(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(dir("d"))
	_ = w.WriteHeader(link("d/l", "../x"))
	_ = w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		root := t.TempDir()
		must(t, os.Mkdir(root+"/in", 0o755))
		_, err := Extract(opened(t, root+"/in"), "n", bytes.NewReader(data), some(), fine)
		for l := range strings.Lines(list(t, root)) {
			if l != "in drwxr-xr-x\n" && l != "in drwxr-xr-x" && (err != nil || !strings.HasPrefix(l, "in/n")) {
				t.Errorf("%v, and left %q", err, l)
			}
		}
	})
}

// endless repeats what it has, and counts what is read.
type endless struct {
	what []byte
	read int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.what[e.read%len(e.what):])
	e.read += n
	return n, nil
}

// Headers that come before an entry, or are none that is copied, are bounded by their bytes: no
// entry is counted for them, and each may have a megabyte.
func TestHeadersWithoutEnd(t *testing.T) {
	t.Parallel()
	extended := func(record string) []byte {
		h := file("f", 0)
		h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{"SOMEBODY.x": record}
		b := archive(t, h).Bytes()
		return b[:512+(len(record)+512)/512*512]
	}
	var b bytes.Buffer
	must(t, tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}))
	global := append(b.Bytes(), make([]byte, 1024)...)[:1024]
	long := &tar.Header{Name: strings.Repeat("n", 200), Typeflag: tar.TypeReg, Format: tar.FormatGNU}
	for what, header := range map[string][]byte{"small": extended("x"), "large": extended(strings.Repeat("x", 900_000)), "long names": archive(t, long).Bytes()[:1024]} {
		for how, read := range map[string]func(r io.Reader) error{
			"extracted": func(r io.Reader) error { _, err := Extract(opened(t, t.TempDir()), "f", r, some(), fine); return err },
			"rewritten": func(r io.Reader) error { _, err := Rewrite(io.Discard, r, some(), fine); return err },
			"packed":    func(r io.Reader) error { _, err := PackStream(io.Discard, r, some()); return err },
		} {
			e := &endless{what: header}
			if err := read(e); err == nil || !strings.Contains(err.Error(), "bytes of headers before an entry") || e.read > 2*maxHeaders {
				t.Errorf("%s, %s: %v after %d bytes", what, how, err, e.read)
			}
		}
	}
	e := &endless{what: global}
	if _, err := PackStream(io.Discard, e, some()); err == nil || !strings.Contains(err.Error(), "more than 100 files") {
		t.Errorf("global headers: %v after %d bytes", err, e.read)
	}
}
