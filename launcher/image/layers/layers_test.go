// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	gvisor "gvisor.dev/gvisor/pkg/erofs"

	"sandboxctl.dev/launcher/image/erofs"
	it "sandboxctl.dev/launcher/image/imagetest"
)

// target is a file that an image is written to.
type target struct{ *os.File }

func (t target) Punch(off, n int64) error {
	return unix.Fallocate(int(t.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// merge merges layers into a file.
func merge(t testing.TB, limits Limits, all ...[]byte) (*os.File, *Merger, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w := erofs.NewWriter(target{f})
	m := New(w, limits)
	for _, l := range all {
		if err := m.ApplyBlob(context.Background(), strings.NewReader(string(l)), Expect{}); err != nil {
			return f, m, err
		}
	}
	_, err = w.Finish(m.Root(), [16]byte{1})
	return f, m, err
}

// nodes reads a file as gVisor does, which is another implementation than the one of
// imagetest: name, mode, owner, links, size and target.
func nodes(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := gvisor.OpenImage(f)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	out := map[string]string{}
	var walk func(path string, nid uint64)
	walk = func(path string, nid uint64) {
		n, err := img.Inode(nid)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		line := fmt.Sprintf("%o %d:%d links %d", n.Mode(), n.UID(), n.GID(), n.Nlink())
		switch {
		case n.IsRegular():
			if _, err := n.DataOffset(); err != nil {
				t.Errorf("%s can't be mapped: %v", path, err)
			}
			parts, err := n.DataRanges()
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			h := sha256.Sum256(append(parts[0].Bytes, parts[1].Bytes...))
			line += fmt.Sprintf(" %d bytes %x", n.Size(), h[:4])
		case n.IsSymlink():
			to, err := n.Readlink()
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			line += " -> " + to
		case n.IsDir():
			err := n.IterDirents(func(name string, _ uint8, child uint64) error {
				if found, err := n.Lookup(name); err != nil || found != child {
					t.Errorf("%s/%s is not found: %v", path, name, err)
				}
				if name != "." && name != ".." {
					walk(filepath.Join(path, name), child)
				}
				return nil
			})
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		out[path] = line
	}
	walk(".", img.RootNid())
	return out
}

func owner(uid, gid int) func(*tar.Header) {
	return func(h *tar.Header) { h.Uid, h.Gid = uid, gid }
}

func mode(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }

// what is what a file looks like to gVisor.
func what(content string, mode, links int) string {
	h := sha256.Sum256([]byte(content))
	return fmt.Sprintf("%o 0:0 links %d %d bytes %x", unix.S_IFREG|mode, links, len(content), h[:4])
}

func dir(links int) string { return fmt.Sprintf("40755 0:0 links %d", links) }

var merges = []struct {
	name   string
	layers [][]it.Entry
	// want has all but the root.
	want map[string]string
}{
	{"nothing", nil, map[string]string{}},
	{"an empty file, and one of a block", [][]it.Entry{{it.File("e", ""), it.File("b", strings.Repeat("x", 4096)), it.File("c", strings.Repeat("x", 4097))}}, map[string]string{
		"e": what("", 0o644, 1), "b": what(strings.Repeat("x", 4096), 0o644, 1), "c": what(strings.Repeat("x", 4097), 0o644, 1),
	}},
	{"a whiteout", [][]it.Entry{{it.Dir("d/"), it.File("d/a", "a"), it.File("d/b", "b")}, {it.File("d/.wh.a", "")}}, map[string]string{"d": dir(2), "d/b": what("b", 0o644, 1)}},
	{"a whiteout of a directory", [][]it.Entry{{it.Dir("d/"), it.Dir("d/e"), it.File("d/e/f", "f")}, {it.File(".wh.d", "")}}, map[string]string{}},
	{"a whiteout, and the file again", [][]it.Entry{{it.File("a", "old")}, {it.File(".wh.a", ""), it.File("a", "new")}}, map[string]string{"a": what("new", 0o644, 1)}},
	{"the file again, and then the whiteout", [][]it.Entry{{it.File("a", "old")}, {it.File("a", "new"), it.File(".wh.a", "")}}, map[string]string{"a": what("new", 0o644, 1)}},
	{"a whiteout of a directory that comes again", [][]it.Entry{{it.Dir("d"), it.File("d/old", "")}, {it.Dir("d"), it.File("d/new", ""), it.File(".wh.d", "")}}, map[string]string{"d": dir(2), "d/new": what("", 0o644, 1)}},
	{"a whiteout of nothing", [][]it.Entry{{it.File("x/.wh.a", ""), it.File(".wh.b", "")}}, map[string]string{}},
	{"a whiteout in its own layer", [][]it.Entry{{it.File("a", ""), it.File(".wh.a", "")}}, map[string]string{"a": what("", 0o644, 1)}},
	{"an opaque directory", [][]it.Entry{
		{it.Dir("d"), it.File("d/a", ""), it.Dir("d/e"), it.File("d/e/f", "")},
		{it.Dir("d").With(mode(0o700)), it.File("d/n", ""), it.File("d/.wh..wh..opq", ""), it.File("d/e/g", "")},
	}, map[string]string{"d": "40700 0:0 links 3", "d/n": what("", 0o644, 1), "d/e": dir(2), "d/e/g": what("", 0o644, 1)}},
	{"an opaque root", [][]it.Entry{{it.File("a", "")}, {it.File(".wh..wh..opq", ""), it.File("b", "")}}, map[string]string{"b": what("", 0o644, 1)}},
	{"marks of an old union file system", [][]it.Entry{{it.Dir(".wh..wh.plnk"), it.File(".wh..wh.aufs", "x")}}, map[string]string{}},
	{"a file over a directory", [][]it.Entry{{it.Dir("d"), it.File("d/a", "")}, {it.File("d", "f")}}, map[string]string{"d": what("f", 0o644, 1)}},
	{"a directory over a file", [][]it.Entry{{it.File("d", "f")}, {it.Dir("d"), it.File("d/a", "")}}, map[string]string{"d": dir(2), "d/a": what("", 0o644, 1)}},
	{"a directory over a directory", [][]it.Entry{{it.Dir("d"), it.File("d/a", "")}, {it.Dir("d").With(mode(0o1777)), it.File("d/b", "")}}, map[string]string{
		"d": "41777 0:0 links 2", "d/a": what("", 0o644, 1), "d/b": what("", 0o644, 1),
	}},
	{"a directory over a link", [][]it.Entry{{it.Dir("usr"), it.Symlink("bin", "usr")}, {it.Dir("bin"), it.File("bin/a", "")}}, map[string]string{"usr": dir(2), "bin": dir(2), "bin/a": what("", 0o644, 1)}},
	{"a file below a link of the same layer", [][]it.Entry{{it.Dir("usr"), it.Symlink("bin", "/usr"), it.File("bin/a", "")}}, map[string]string{"usr": dir(2), "bin": "120777 0:0 links 1 -> /usr", "usr/a": what("", 0o644, 1)}},
	{"a file below a link of a lower layer", [][]it.Entry{{it.Dir("usr"), it.Symlink("bin", "usr")}, {it.File("bin/a", "")}}, map[string]string{"usr": dir(2), "bin": dir(2), "bin/a": what("", 0o644, 1)}},
	{"a link that leads out", [][]it.Entry{{it.Symlink("up", "../../../../etc"), it.File("up/passwd", "x")}}, map[string]string{
		"up": "120777 0:0 links 1 -> ../../../../etc", "etc": dir(2), "etc/passwd": what("x", 0o644, 1),
	}},
	{"an absolute link", [][]it.Entry{{it.Symlink("a/b/up", "/etc"), it.File("a/b/up/passwd", "x")}}, map[string]string{
		"a": dir(3), "a/b": dir(2), "a/b/up": "120777 0:0 links 1 -> /etc", "etc": dir(2), "etc/passwd": what("x", 0o644, 1),
	}},
	{"absolute names, dots and slashes", [][]it.Entry{{it.File("/a", "1"), it.File("./b", "2"), it.File("x//y/../c", "3"), it.Dir("./")}}, map[string]string{
		"a": what("1", 0o644, 1), "b": what("2", 0o644, 1), "x": dir(2), "x/c": what("3", 0o644, 1),
	}},
	{"the root", [][]it.Entry{{it.File("a", ""), it.Dir("./").With(mode(0o711))}}, map[string]string{".": "40711 0:0 links 2", "a": what("", 0o644, 1)}},
	{"the same name twice", [][]it.Entry{{it.File("a", "1"), it.File("a", "22")}}, map[string]string{"a": what("22", 0o644, 1)}},
	{"hard links", [][]it.Entry{{it.File("a", "x"), it.Link("b", "a"), it.Link("/d/c", "/b")}}, map[string]string{
		"a": what("x", 0o644, 3), "b": what("x", 0o644, 3), "d": dir(2), "d/c": what("x", 0o644, 3),
	}},
	{"a hard link to a file of a lower layer", [][]it.Entry{{it.File("a", "x")}, {it.Link("b", "a")}}, map[string]string{"a": what("x", 0o644, 2), "b": what("x", 0o644, 2)}},
	{"a hard link instead of a name", [][]it.Entry{{it.File("a", "x")}, {it.Link("b", "a"), it.File(".wh.a", "")}}, map[string]string{"b": what("x", 0o644, 1)}},
	{"one of two names replaced", [][]it.Entry{{it.File("a", "x"), it.Link("b", "a")}, {it.File("a", "y")}}, map[string]string{"a": what("y", 0o644, 1), "b": what("x", 0o644, 1)}},
	{"a hard link to itself", [][]it.Entry{{it.File("a", "x"), it.Link("a", "a")}}, map[string]string{"a": what("x", 0o644, 1)}},
	{"a hard link to a link", [][]it.Entry{{it.Symlink("a", "nowhere"), it.Link("b", "a")}}, map[string]string{
		"a": "120777 0:0 links 2 -> nowhere", "b": "120777 0:0 links 2 -> nowhere",
	}},
	{"owners and modes", [][]it.Entry{{
		it.File("su", "").With(mode(0o4755)).With(owner(0, 4_000_000_000)), it.Dir("t").With(mode(0o3777)).With(owner(70_000, 65_534)),
	}}, map[string]string{"su": strings.Replace(what("", 0o4755, 1), "0:0", "0:4000000000", 1), "t": "43777 70000:65534 links 2"}},
	{"devices and fifos", [][]it.Entry{{it.File("null", "lower")}, {
		it.Special(tar.TypeChar, "null", 1, 3), it.Special(tar.TypeBlock, "sda", 8, 0), it.Special(tar.TypeFifo, "p", 0, 0),
	}}, map[string]string{"p": "10600 0:0 links 1"}},
	{"a mark that is a device", [][]it.Entry{{it.File("a", "")}, {it.Special(tar.TypeChar, "a", 0, 0)}}, map[string]string{}},
	{"long names", [][]it.Entry{{it.File(strings.Repeat("n", 255), "1"), it.File(strings.Repeat("a-directory-of-many/", 50)+"f", "2").With(func(h *tar.Header) { h.Format = tar.FormatGNU }), it.Symlink("l", strings.Repeat("t", 4095))}}, nil},
}

func TestMerge(t *testing.T) {
	t.Parallel()
	for _, c := range merges {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var all [][]byte
			for _, l := range c.layers {
				all = append(all, it.Tar(l...))
			}
			f, _, err := merge(t, DefaultLimits, all...)
			if err != nil {
				t.Fatal(err)
			}
			got := nodes(t, f.Name())
			if c.want != nil {
				if c.want["."] == "" {
					c.want["."] = got["."]
				}
				compare(t, got, c.want)
			}
			agree(t, f, got)
		})
	}
}

func compare(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, p := range slices.Sorted(maps.Keys(want)) {
		if got[p] != want[p] {
			t.Errorf("%s: %q, expected %q", p, got[p], want[p])
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s: %q, expected nothing", p, got[p])
		}
	}
}

// agree lets other implementations read the file: they must see the same files.
func agree(t *testing.T, f *os.File, want map[string]string) {
	t.Helper()
	tree, err := it.Tree(f)
	if err != nil {
		t.Errorf("go-erofs: %v", err)
	}
	if a, b := slices.Sorted(maps.Keys(tree)), slices.Sorted(maps.Keys(want)); !slices.Equal(a, b) {
		t.Errorf("go-erofs sees %v, gVisor %v", a, b)
	}
	if fsck, err := exec.LookPath("fsck.erofs"); err == nil {
		if out, err := exec.Command(fsck, f.Name()).CombinedOutput(); err != nil {
			t.Errorf("fsck.erofs: %v\n%s", err, out)
		}
	}
}

// Many directories in each other. go-erofs resolves each path from the root, which takes
// seconds with the race detector; gVisor's reader does not.
func TestMergeDeep(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("d/", 500) + "f"
	f, _, err := merge(t, DefaultLimits, it.Tar(it.File(deep, "2").With(func(h *tar.Header) { h.Format = tar.FormatGNU })))
	if err != nil {
		t.Fatal(err)
	}
	if got := nodes(t, f.Name()); len(got) != 502 || !strings.HasPrefix(got[deep], "100644 0:0 links 1 1 bytes ") {
		t.Errorf("%d files, the deepest is %q", len(got), got[deep])
	}
}

func TestMergeRefuses(t *testing.T) {
	t.Parallel()
	small := Limits{Entries: 3, Bytes: 10, Text: 100}
	for name, c := range map[string]struct {
		limits  Limits
		entries []it.Entry
		want    error
		says    string
	}{
		"a name that leads out":       {entries: []it.Entry{it.File("../a", "")}, says: "leads out"},
		"a name that leads out later": {entries: []it.Entry{it.File("a/../../b", "")}, says: "leads out"},
		"a hard link that leads out":  {entries: []it.Entry{it.Link("a", "../../etc/shadow")}, says: "leads out"},
		"a hard link to nothing":      {entries: []it.Entry{it.Link("a", "etc/shadow")}, says: "not there"},
		"a hard link to a directory":  {entries: []it.Entry{it.Dir("d"), it.Link("a", "d")}, says: "directory"},
		"a hard link as the root":     {entries: []it.Entry{it.File("a", ""), it.Link("/", "a")}, says: "directory"},
		"a file as the root":          {entries: []it.Entry{it.Symlink(".", "a")}, says: "root"},
		"a whiteout of the parent":    {entries: []it.Entry{it.File("d/.wh...", "")}, says: "removes"},
		"a whiteout of the directory": {entries: []it.Entry{it.File("d/.wh..", "")}, says: "removes"},
		"a whiteout of no name":       {entries: []it.Entry{it.File("d/.wh.", "")}, says: "removes"},
		"a file below a file":         {entries: []it.Entry{it.File("a", ""), it.File("a/b", "")}, says: "a file and a directory"},
		"links in a circle":           {entries: []it.Entry{it.Symlink("a", "b"), it.Symlink("b", "a"), it.File("a/c", "")}, says: "links"},
		"a link to itself":            {entries: []it.Entry{it.Symlink("a", "a/x"), it.File("a/c", "")}, says: "links"},
		"a long name":                 {entries: []it.Entry{it.File(strings.Repeat("n", 256), "")}, says: "255"},
		"a long path":                 {entries: []it.Entry{it.File(strings.Repeat("d/", 2100)+"f", "")}, says: "4096"},
		"a link to a long path":       {entries: []it.Entry{it.Symlink("a", strings.Repeat("t", 4096))}, says: "symbolic link"},
		"an owner below zero":         {entries: []it.Entry{it.File("a", "").With(owner(-1, 0))}, says: "owner"},
		"an owner that is too large":  {entries: []it.Entry{it.File("a", "").With(owner(0, 1<<32))}, says: "owner"},
		"an unknown type":             {entries: []it.Entry{it.File("a", "").With(func(h *tar.Header) { h.Typeflag = 'Z' })}, says: "unknown type"},
		"too many entries":            {limits: small, entries: []it.Entry{it.Dir("a"), it.Dir("b"), it.Dir("c"), it.Dir("d")}, want: ErrLimit},
		"too many implied entries":    {limits: small, entries: []it.Entry{it.File("a/b/c/d", "")}, want: ErrLimit},
		"too long links":              {limits: small, entries: []it.Entry{it.Symlink("a", strings.Repeat("t", 90)), it.Symlink("b", "123456789")}, want: ErrLimit, says: "names and links"},
		"too long names":              {limits: small, entries: []it.Entry{it.File(strings.Repeat("n", 90), ""), it.File("12345678901", "")}, want: ErrLimit, says: "names and links"},
		"too long implied names":      {limits: small, entries: []it.Entry{it.File(strings.Repeat("n", 99)+"/ab", ""), it.File("c", "")}, want: ErrLimit, says: "names and links"},
		"too many bytes":              {limits: small, entries: []it.Entry{it.File("a", "123456"), it.File("b", "12345")}, want: ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.limits == (Limits{}) {
				c.limits = DefaultLimits
			}
			if c.want == nil {
				c.want = ErrInvalid
			}
			_, _, err := merge(t, c.limits, it.Tar(c.entries...))
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, expected %v with %q", err, c.want, c.says)
			}
		})
	}
}
