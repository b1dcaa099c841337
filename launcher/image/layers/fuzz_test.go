// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"sandboxctl.dev/launcher/image/erofs"
	it "sandboxctl.dev/launcher/image/imagetest"
)

// memory is a file in memory.
type memory struct{ b []byte }

func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	if need := int(off) + len(b); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], b), nil
}

func (m *memory) Truncate(size int64) error {
	if int(size) > len(m.b) {
		m.b = append(m.b, make([]byte, int(size)-len(m.b))...)
	}
	m.b = m.b[:size]
	return nil
}

func (m *memory) Punch(off, n int64) error {
	end := min(int(off+n), len(m.b))
	for i := min(int(off), end); i < end; i++ {
		m.b[i] = 0
	}
	return nil
}

func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(m.b).ReadAt(b, off)
}

// FuzzMerge merges whatever comes as two layers: it is refused, or becomes a file system
// that another implementation can read in whole.
func FuzzMerge(f *testing.F) {
	for _, c := range merges {
		var all [2][]byte
		for i, l := range c.layers[:min(2, len(c.layers))] {
			all[i] = it.Tar(l...)
		}
		if c.want != nil { // a deep tree takes long to read
			f.Add(all[0], all[1])
		}
	}
	f.Add(it.Gzip(it.Tar(it.File("a", "b"))), it.Zstd(it.Tar(it.Link("b", "a"))))
	here, err := os.Getwd()
	if err != nil {
		f.Fatal(err)
	}
	before, err := os.ReadDir(here)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		out := &memory{}
		w := erofs.NewWriter(out)
		m := New(w, Limits{Entries: 1000, Bytes: 1 << 20, Text: 1 << 20})
		for _, l := range [][]byte{lower, upper} {
			if err := m.ApplyBlob(context.Background(), strings.NewReader(string(l)), Expect{}); err != nil {
				return
			}
		}
		if _, err := w.Finish(m.Root(), [16]byte{}); err != nil {
			t.Fatalf("a tree that was accepted can't be written: %v", err)
		}
		if _, err := it.Tree(out); err != nil {
			t.Fatalf("it can't be read: %v", err)
		}
		after, err := os.ReadDir(here)
		if err != nil || len(after) != len(before) {
			t.Fatalf("there is something new on the host: %v, %v", after, err)
		}
	})
}

// Marks that remove what is not there any more cost nothing: a layer may have a million of
// them for one large directory.
func TestManyMarks(t *testing.T) {
	t.Parallel()
	const many = 20000
	for name, mark := range map[string]func(i int) []it.Entry{
		"of an opaque directory": func(int) []it.Entry { return []it.Entry{it.File("d/.wh..wh..opq", "")} },
		"of a directory":         func(int) []it.Entry { return []it.Entry{it.File(".wh.d", "")} },
		"of one described again": func(int) []it.Entry { return []it.Entry{it.Dir("d/"), it.File("d/.wh..wh..opq", "")} },
		"of the root":            func(int) []it.Entry { return []it.Entry{it.Dir("./"), it.File(".wh..wh..opq", "")} },
		"a device in its place":  func(int) []it.Entry { return []it.Entry{it.Special(tar.TypeChar, "d", 0, 0)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var lower, upper []it.Entry
			for i := range many {
				lower = append(lower, it.File(fmt.Sprintf("d/lower%d", i), ""))
				upper = append(upper, it.File(fmt.Sprintf("d/upper%d", i), ""))
			}
			for i := range many {
				upper = append(upper, mark(i)...)
			}
			_, m, err := merge(t, DefaultLimits, it.Tar(lower...), it.Tar(upper...))
			if err != nil {
				t.Fatal(err)
			}
			if n := len(m.Root().Children["d"].Children); n != many {
				t.Errorf("%d files are left, expected %d", n, many)
			}
			// Without a bound these are 400 million.
			if m.looks > 5*many {
				t.Errorf("%d entries were looked at", m.looks)
			}
		})
	}
}
