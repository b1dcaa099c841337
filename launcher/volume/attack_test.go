// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
)

// raw is an entry as no writer of archives makes it: a header, with the records before it and
// the content behind it.
type raw struct {
	name, link string
	kind       byte
	mode, uid  string // octal
	size       int
	records    []string // key=value, of the extended header
	body       string
}

func pad(b string) string { return b + strings.Repeat("\x00", int(padded(int64(len(b))))) }

func (r raw) header(kind byte, size int) string {
	b := make([]byte, block)
	copy(b[0:100], r.name)
	copy(b[100:108], or(r.mode, "0000644"))
	copy(b[108:116], or(r.uid, "0000000"))
	copy(b[116:124], "0000000")
	copy(b[124:136], fmt.Sprintf("%011o", size))
	copy(b[136:148], "00000000000")
	b[156] = kind
	copy(b[157:257], r.link)
	copy(b[257:265], "ustar\x0000")
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return string(b)
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (r raw) String() string {
	var out strings.Builder
	if len(r.records) > 0 {
		var all strings.Builder
		for _, rec := range r.records {
			n := len(rec) + 2
			for len(fmt.Sprint(n))+len(rec)+2 > n {
				n++
			}
			fmt.Fprintf(&all, "%d %s\n", n, rec)
		}
		x := raw{name: "x", kind: 'x'}
		out.WriteString(x.header('x', all.Len()) + pad(all.String()))
	}
	kind := r.kind
	if kind == 0 {
		kind = '0'
	}
	size := max(r.size, len(r.body))
	out.WriteString(r.header(kind, size) + pad(r.body))
	return out.String()
}

type hostileArchive struct {
	name    string
	archive []byte
	// refused says that nothing of it may be restored.
	refused bool
}

// hostileArchives are what no program that means well writes.
func hostileArchives() []hostileArchive {
	const end = 2 * block
	long := strings.Repeat("n", 300)
	list := []struct {
		name    string
		refused bool
		entries []raw
	}{
		{"plain", false, []raw{{name: "a", body: "x"}, {name: "d/", kind: '5', mode: "0000755"}, {name: "d/l", kind: '2', link: "../a"}, {name: "h", kind: '1', link: "a"}}},
		{"a name out, in a record", true, []raw{{name: "a", records: []string{"path=../secret"}, body: "x"}}},
		{"an absolute name, in a record", true, []raw{{name: "a", records: []string{"path=/tmp/x"}, body: "x"}}},
		{"no name", true, []raw{{name: "", body: "x"}}},
		{"only dots", true, []raw{{name: "./.././", kind: '5'}}},
		{"dots in the end", true, []raw{{name: "a/..", body: "x"}}},
		{"two slashes", true, []raw{{name: "//a", body: "x"}}},
		{"a NUL in a name", true, []raw{{name: "a", records: []string{"path=a\x00/../../secret"}, body: "x"}}},
		{"a hard link out, in a record", true, []raw{{name: "h", kind: '1', records: []string{"linkpath=../secret"}}}},
		{"a hard link to itself", true, []raw{{name: "h", kind: '1', link: "h"}}},
		{"a hard link to the volume", true, []raw{{name: "h", kind: '1', link: "."}}},
		{"a hard link to a link", false, []raw{{name: "l", kind: '2', link: "../secret"}, {name: "h", kind: '1', link: "l"}}},
		{"what a hard link to a link is written through", true, []raw{{name: "l", kind: '2', link: "../secret"}, {name: "h", kind: '1', link: "l"}, {name: "h", body: "x"}}},
		{"the mode of a link", false, []raw{{name: "l", kind: '2', link: "../secret", mode: "0007777", uid: "0000007"}}},
		{"a fifo, then a file in it", true, []raw{{name: "f", kind: '6'}, {name: "f/a", body: "x"}}},
		{"a file, then a file below it", true, []raw{{name: "a", body: "x"}, {name: "a/b", body: "x"}}},
		{"a directory that becomes a link", true, []raw{{name: "d/", kind: '5'}, {name: "d", kind: '2', link: ".."}, {name: "d/secret", body: "x"}}},
		{"a file for a directory", true, []raw{{name: "d/", kind: '5'}, {name: "d", body: "x"}}},
		{"a directory twice", false, []raw{{name: "d/", kind: '5', mode: "0000700"}, {name: "d/a", body: "x"}, {name: "d/", kind: '5', mode: "0000755"}}},
		{"a long name", true, []raw{{name: "a", records: []string{"path=" + long}, body: "x"}}},
		{"a long path", false, []raw{{name: "a", records: []string{"path=" + strings.Repeat(long[:100]+"/", 30) + "a"}, body: "x"}}},
		{"an endless path", true, []raw{{name: "a", records: []string{"path=" + strings.Repeat("d/", 100_000) + "a"}, body: "x"}}},
		{"a long link", true, []raw{{name: "l", kind: '2', records: []string{"linkpath=" + strings.Repeat("l", 5000)}}}},
		{"an empty link", true, []raw{{name: "l", kind: '2', link: ""}}},
		{"names that a terminal obeys", true, []raw{{name: "a\x1b[2J\n\x07", body: "x"}, {name: "a\x1b[2J\n\x07", body: "x"}}},
		{"a size of all there is", true, []raw{{name: "a", records: []string{"size=9223372036854775807"}, body: "x"}}},
		{"a negative size", true, []raw{{name: "a", records: []string{"size=-1"}, body: "x"}}},
		{"a sparse file without end", true, []raw{{name: "a", records: []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=a", "GNU.sparse.realsize=9223372036854775806"}, body: pad("1\n0\n0\n")}}},
		{"a sparse file with parts in parts", true, []raw{{name: "a", records: []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=a", "GNU.sparse.realsize=1000"}, body: pad("2\n0\n500\n100\n500\n") + pad(strings.Repeat("x", 1000))}}},
		{"a sparse file whose name leads out", true, []raw{{name: "a", records: []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=../secret", "GNU.sparse.realsize=1"}, body: pad("1\n0\n1\n") + pad("x")}}},
		{"a sparse file that is a link", true, []raw{{name: "a", kind: '2', link: "../secret", records: []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=a", "GNU.sparse.realsize=1"}}, {name: "a", body: "x"}}},
		{"an owner that is none", true, []raw{{name: "a", records: []string{"uid=-2"}, body: "x"}}},
		{"a large owner", true, []raw{{name: "a", records: []string{"uid=99999999999999"}, body: "x"}}},
		{"an owner that becomes root", true, []raw{{name: "a", records: []string{"uid=4294967296"}, body: "x"}}},
		{"a group that is none", true, []raw{{name: "d/", kind: '5', records: []string{"gid=4294967295"}}}},
		{"a link's owner that is none", true, []raw{{name: "l", kind: '2', link: "x", records: []string{"uid=-1"}}}},
		{"a time that is none", false, []raw{{name: "a", records: []string{"mtime=999999999999999"}, body: "x"}}},
		{"attributes of the host", false, []raw{{name: "a", records: []string{"SCHILY.xattr.security.selinux=system_u:object_r:shadow_t", "SCHILY.xattr.trusted.overlay.opaque=y", "SCHILY.xattr.security.ima=x", "SCHILY.xattr.=x"}, body: "x"}}},
		{"a large attribute", true, []raw{{name: "a", records: []string{"SCHILY.xattr.user.a=" + strings.Repeat("v", 70_000)}, body: "x"}}},
		{"an attribute with a long name", true, []raw{{name: "a", records: []string{"SCHILY.xattr.user." + long + "=x"}, body: "x"}}},
		{"an attribute of a link", false, []raw{{name: "l", kind: '2', link: "../secret", records: []string{"SCHILY.xattr.user.a=x"}}}},
		{"a block device", true, []raw{{name: "b", kind: '4'}}},
		{"a type that is none", true, []raw{{name: "b", kind: 'Z'}}},
		{"a file of several volumes", true, []raw{{name: "b", kind: 'M', body: "x"}}},
		{"records without end", true, []raw{{name: "a", records: []string{"comment=" + strings.Repeat("c", 2<<20)}, body: "x"}}},
		{"set-user-ID", false, []raw{{name: "s", mode: "0006755", body: "x"}}},
	}
	var out []hostileArchive
	for _, l := range list {
		var b strings.Builder
		for _, e := range l.entries {
			b.WriteString(e.String())
		}
		b.WriteString(strings.Repeat("\x00", end))
		out = append(out, hostileArchive{l.name, []byte(b.String()), l.refused})
	}
	return out
}

// An archive that no program has written restores nothing outside of the volume and no device,
// takes no memory, and is refused in words that no terminal obeys.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	for _, c := range hostileArchives() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, path := state(t)
			secret := filepath.Join(path, "secret") // where .. of a volume's data would lead
			s, err := Open(dir)
			must(t, err)
			defer s.Close()
			must(t, os.WriteFile(secret, []byte("secret"), 0o600))
			err = s.Restore(t.Context(), "v", bytes.NewReader(c.archive), Limits{Bytes: 1 << 30, Files: 1000})
			if (err != nil) != c.refused {
				t.Errorf("%v, refused is expected: %v", err, c.refused)
			}
			if err != nil && (strings.ContainsAny(err.Error(), "\n\x1b\x07\x00") || len(err.Error()) > 2000) {
				t.Errorf("%q", err)
			}
			var st unix.Stat_t
			must(t, unix.Lstat(secret, &st))
			if st.Nlink != 1 || st.Size != 6 || st.Mode&0o7777 != 0o600 || st.Uid != 0 {
				t.Errorf("outside: %+v", st)
			}
			names, rerr := os.ReadDir(path)
			must(t, rerr)
			if want := map[bool]int{true: 1, false: 2}[err != nil]; len(names) != want {
				t.Errorf("in the directory of volumes: %v", names)
			}
			if err != nil {
				return
			}
			for _, line := range describe(t, path+"/v/data") {
				if strings.Contains(line, " 2") && strings.HasPrefix(strings.Fields(line)[1], "2") { // S_IFCHR
					t.Errorf("a device: %s", line)
				}
			}
			for _, attr := range []string{"security.selinux", "trusted.overlay.opaque", "security.ima"} {
				if n, err := unix.Lgetxattr(path+"/v/data/a", attr, nil); err == nil && n > 0 && attr != "security.selinux" {
					t.Errorf("the attribute %s was restored", attr)
				}
			}
		})
	}
}

// An archive of headers that say nothing takes no memory, however long it is.
func TestArchiveOfHeaders(t *testing.T) {
	dir, _ := state(t)
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	var one bytes.Buffer
	w := tar.NewWriter(&one)
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"comment": strings.Repeat("c", 100_000)}, Format: tar.FormatPAX}))
	must(t, w.Flush())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r := &repeated{b: one.Bytes(), times: 1000}
	err = s.Restore(t.Context(), "v", watched{r, func() {
		if r.times != 10 {
			return
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if after.HeapAlloc > before.HeapAlloc+8<<20 {
			t.Errorf("%d bytes for headers", after.HeapAlloc-before.HeapAlloc)
		}
	}}, Limits{})
	if !errors.Is(err, ErrArchive) { // it has no end
		t.Errorf("%v", err)
	}
	if after.HeapAlloc == 0 {
		t.Error("nothing was measured")
	}
	if _, err := s.Look("v"); !errors.Is(err, ErrNotFound) {
		t.Errorf("left: %v", err)
	}
	trash, err := os.ReadDir(filepath.Join(dir.Name(), actual.TrashDir))
	if err == nil && len(trash) > 0 {
		t.Errorf("left: %v", trash)
	}
}

// repeated reads the same again and again.
type repeated struct {
	b     []byte
	at    int
	times int
}

func (r *repeated) Read(b []byte) (int, error) {
	if r.times == 0 {
		return 0, errors.New("the end")
	}
	n := copy(b, r.b[r.at:])
	if r.at += n; r.at == len(r.b) {
		r.at, r.times = 0, r.times-1
	}
	return n, nil
}
