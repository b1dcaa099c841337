// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// file is what was written to it, and in which pieces.
type file struct {
	b      []byte
	pieces [][2]int64
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	f.pieces = append(f.pieces, [2]int64{off, int64(len(b))})
	f.b = append(f.b, make([]byte, max(0, int(off)+len(b)-len(f.b)))...)
	return copy(f.b[off:], b), nil
}

func (f *file) Truncate(n int64) error {
	f.b = append(f.b, make([]byte, max(0, int(n)-len(f.b)))...)[:n]
	return nil
}

func (f *file) Punch(int64, int64) error { return nil }

// Whatever sizes files have, each is where its inode says, nothing is behind its end, and
// all are written in large pieces.
func TestPieces(t *testing.T) {
	t.Parallel()
	for name, sizes := range map[string][]int{
		"many small":               slices.Repeat([]int{1, 5000, 4096, 0, 100}, 500),
		"large":                    {3<<20 + 1, 1<<20 - 4096, 4096, 1 << 20, 2<<20 + 4095},
		"large and small":          slices.Repeat([]int{700_000, 3, 90_000}, 10),
		"none":                     {},
		"up to the end of a piece": {1<<20 - 4096 - 1, 7, 1<<20 - 4096, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := &file{}
			w := NewWriter(out)
			root := &Node{Mode: unix.S_IFDIR, Children: map[string]Entry{}}
			var at []Content
			total := 0
			for i, n := range sizes {
				c, err := w.Append(strings.NewReader(strings.Repeat(string(rune('a'+i%26)), n)), int64(n))
				if err != nil {
					t.Fatal(err)
				}
				at = append(at, c)
				total += int(roundUp(int64(n), BlockSize))
			}
			if _, err := w.Finish(root, [16]byte{}); err != nil {
				t.Fatal(err)
			}
			for i, c := range at {
				off, length := c.extent()
				want := append(bytes.Repeat([]byte{byte('a' + i%26)}, sizes[i]), make([]byte, int(length)-sizes[i])...)
				if got := out.b[min(off, int64(len(out.b))):][:length]; !bytes.Equal(got, want) {
					t.Fatalf("file %d of %d bytes at %d is another one", i, sizes[i], off)
				}
			}
			if most := total/bufSize + 5; len(out.pieces) > most {
				t.Errorf("%d writes for %d bytes, expected at most %d", len(out.pieces), total, most)
			}
			for _, p := range out.pieces[1:max(1, len(out.pieces)-3)] {
				if p[0]%bufSize != 0 {
					t.Errorf("a piece at %d", p[0])
				}
			}
		})
	}
}

// Large parts of zeros are not written, wherever they are.
func TestHoles(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("\x00", 10<<20)
	out := &file{}
	w := NewWriter(out)
	for _, text := range []string{zeros, "x", zeros + "y" + zeros, "z", zeros[:100_000], zeros} {
		if _, err := w.Append(strings.NewReader(text), int64(len(text))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish(&Node{Mode: unix.S_IFDIR, Children: map[string]Entry{}}, [16]byte{}); err != nil {
		t.Fatal(err)
	}
	written := int64(0)
	for _, p := range out.pieces {
		written += p[1]
	}
	if written > 5*holeSize || strings.Count(string(out.b), "x")+strings.Count(string(out.b), "y")+strings.Count(string(out.b), "z") < 3 {
		t.Errorf("%d bytes of %d were written", written, len(out.b))
	}
}

// A file that ends too soon is an error, also after the last piece was written.
func TestShort(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 4095, bufSize, 3 << 20} {
		w := NewWriter(&file{})
		if _, err := w.Append(strings.NewReader(strings.Repeat("x", n)), int64(n)+1); err == nil {
			t.Errorf("%d bytes instead of %d", n, n+1)
		}
	}
}
