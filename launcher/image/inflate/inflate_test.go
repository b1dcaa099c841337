// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// contents are what compresses in all ways that there are.
func contents() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	var text, skewed, near bytes.Buffer
	for text.Len() < 700_000 {
		fmt.Fprintf(&text, "entry %d of %x; ", r.IntN(1000), r.IntN(1<<r.IntN(20)))
	}
	for skewed.Len() < 500_000 {
		// Codes of all lengths.
		skewed.WriteByte(byte(r.IntN(1 << r.IntN(9))))
	}
	for near.Len() < 400_000 {
		// Copies from all distances, short ones too.
		near.WriteString(strings.Repeat(string(noise[:1+r.IntN(9)]), 1+r.IntN(60)))
		at := r.IntN(len(noise) - 300)
		near.Write(noise[at : at+r.IntN(300)])
		if from := near.Len() - 1 - r.IntN(min(near.Len()-1, 40_000)); from >= 0 {
			near.Write(bytes.Clone(near.Bytes()[from:min(near.Len(), from+r.IntN(400))]))
		}
	}
	return map[string][]byte{
		"nothing": nil, "a byte": {7}, "zeros": make([]byte, 3<<20), "noise": noise, "text": text.Bytes(),
		"skewed": skewed.Bytes(), "near": near.Bytes(), "all": bytes.Join([][]byte{text.Bytes(), noise, make([]byte, 100_000), skewed.Bytes(), near.Bytes()}, nil),
	}
}

func zip(t testing.TB, b []byte, level int) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What was compressed comes back, in whatever pieces it is read.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for name, want := range contents() {
		for _, level := range []int{flate.NoCompression, flate.BestSpeed, flate.DefaultCompression, flate.BestCompression, flate.HuffmanOnly} {
			t.Run(fmt.Sprint(name, " at level ", level), func(t *testing.T) {
				t.Parallel()
				z := zip(t, want, level)
				for kind, src := range map[string]io.Reader{
					"whole": bytes.NewReader(z), "bytes": iotest.OneByteReader(bytes.NewReader(z)),
					"halves": iotest.HalfReader(bytes.NewReader(z)), "with the end": iotest.DataErrReader(bytes.NewReader(z)),
				} {
					got, err := io.ReadAll(iotest.HalfReader(NewReader(src)))
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s: %d bytes instead of %d: %v", kind, len(got), len(want), err)
					}
				}
			})
		}
	}
}

// Several members are one stream, as pigz and others write them.
func TestMembers(t *testing.T) {
	t.Parallel()
	var z, want []byte
	for _, b := range contents() {
		z, want = append(z, zip(t, b, 6)...), append(want, b...)
	}
	got, err := io.ReadAll(NewReader(bytes.NewReader(z)))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes instead of %d: %v", len(got), len(want), err)
	}
	// A member does not reach into the one before: such a copy is an error.
	far, err := flateWithDictionary("0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	head := zip(t, []byte("0123456789abcdef"), 6)
	z = append(append(bytes.Clone(head), head[:10]...), far...)
	if _, err := io.ReadAll(NewReader(bytes.NewReader(append(z, make([]byte, 64)...)))); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a copy from another member: %v", err)
	}
}

// flateWithDictionary compresses a text that is said to come after itself.
func flateWithDictionary(text string) ([]byte, error) {
	var out bytes.Buffer
	w, err := flate.NewWriterDict(&out, 9, []byte(text))
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	return out.Bytes(), errors.Join(err, w.Close())
}

// All fields that a header may have are read, and its checksum is compared.
func TestHeader(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Name, z.Comment, z.Extra = "name", "comment", []byte("extra")
	if _, err := z.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(NewReader(bytes.NewReader(out.Bytes())))
	if err != nil || string(got) != "content" {
		t.Fatalf("%q, %v", got, err)
	}
	for _, n := range []int{510, 511, 512, 513} {
		named := []byte{0x1f, 0x8b, 8, hasName, 0, 0, 0, 0, 0, 255}
		named = append(append(named, bytes.Repeat([]byte{'n'}, n)...), 0)
		same(t, append(named, zip(t, []byte("content"), 6)[10:]...))
	}
	// 1f 8b 08, the flag, time, and two more; the checksum of these ten bytes.
	withCRC := append([]byte{0x1f, 0x8b, 8, hasHeaderCRC, 0, 0, 0, 0, 0, 255}, 0, 0)
	body := zip(t, []byte("content"), 6)[10:]
	sum := crc32.ChecksumIEEE(withCRC[:10])
	for off := range uint32(20) {
		binary.LittleEndian.PutUint16(withCRC[10:], uint16(sum+off*off))
		all := append(bytes.Clone(withCRC), body...)
		got, err := io.ReadAll(NewReader(bytes.NewReader(all)))
		if (off == 0) != (err == nil && string(got) == "content") || off > 0 && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("checksum %x with %d added: %q, %v", sum, off*off, got, err)
		}
		same(t, all)
	}
}

func gzipAll(b []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// same compares with the standard library: the same bytes come, and an error where it has
// one. What comes before an error may be less or more: nothing of it is used.
func same(t *testing.T, b []byte) {
	t.Helper()
	want, werr := gzipAll(b)
	for kind, src := range map[string]io.Reader{"whole": bytes.NewReader(b), "bytes": iotest.OneByteReader(bytes.NewReader(b))} {
		got, err := io.ReadAll(NewReader(src))
		if (err == nil) != (werr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%s, %x: %d bytes, %v; the standard library has %d bytes, %v", kind, b[:min(len(b), 200)], len(got), err, len(want), werr)
		}
	}
}

// What was damaged or cut is an error, and never a panic.
func TestDamaged(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for _, content := range contents() {
		content = content[:min(len(content), 20_000)]
		for _, level := range []int{0, 1, 6, 9, flate.HuffmanOnly} {
			z := zip(t, content, level)
			for range 20 {
				b := bytes.Clone(z)
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
				same(t, b)
				same(t, b[:r.IntN(len(b))])
				same(t, z[:r.IntN(len(z))])
			}
			same(t, append(bytes.Clone(z), 0))
			same(t, append(bytes.Clone(z), "garbage behind it"...))
			same(t, append(bytes.Clone(z), z[:5]...))
		}
	}
}

// Codes that are no prefix code, and those that are not complete, are taken and refused as
// the standard library does.
func TestTables(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	whole := 0
	for range 1000 {
		same(t, fixedBlock(r))
		same(t, randomBlock(r, false))
		b := randomBlock(r, true)
		same(t, b)
		if _, err := gzipAll(b); errors.Is(err, gzip.ErrChecksum) {
			whole++ // the block was read up to its end
		}
	}
	if whole < 50 {
		t.Errorf("of 1000 blocks with a prefix code %d have an end", whole)
	}
}

// fixedBlock is random bits, decoded with the tables of the format.
func fixedBlock(r *rand.Rand) []byte {
	var w bitWriter
	w.put(3, 3)
	for range 20 {
		w.put(r.Uint64(), 40)
	}
	return append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, w.bytes...)
}

// randomBlock is a block with codes of random lengths, and random bits behind them.
func randomBlock(r *rand.Rand, prefix bool) []byte {
	var w bitWriter
	w.put(5, 3) // the last block, with tables
	lits, dists := r.IntN(30), r.IntN(30)
	if !prefix {
		lits, dists = r.IntN(32), r.IntN(32) // two of each are too many
	}
	w.put(uint64(lits), 5)
	w.put(uint64(dists), 5)
	w.put(15, 4)
	for i := range lengthOrder {
		// Codes of lengths: sixteen of four bits. In the order of the format, what comes
		// first repeats lengths, and is not used.
		n := uint64(4)
		if i < 3 {
			n = 0
		}
		if !prefix && r.IntN(50) == 0 {
			n = r.Uint64N(8)
		}
		w.put(n, 3)
	}
	if prefix {
		for _, n := range append(prefixCode(r, lits+257), prefixCode(r, dists+1)...) {
			w.put(uint64(bits.Reverse8(n)>>4), 4)
		}
	}
	for range 400 {
		w.put(r.Uint64(), 1+uint(r.IntN(30)))
	}
	return append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, w.bytes...)
}

// prefixCode are the lengths of a complete code of at most n symbols.
func prefixCode(r *rand.Rand, n int) []uint8 {
	leaves := []uint8{1, 1}
	for range r.IntN(max(n-2, 1)) {
		if i := r.IntN(len(leaves)); leaves[i] < longest {
			leaves[i]++
			leaves = append(leaves, leaves[i])
		}
	}
	out := make([]uint8, n)
	copy(out, leaves) // one symbol has one bit, and the code is not complete
	r.Shuffle(n, func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

type bitWriter struct {
	bytes []byte
	v     uint64
	n     uint
}

func (w *bitWriter) put(v uint64, n uint) {
	w.v |= v & (1<<n - 1) << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.bytes = append(w.bytes, byte(w.v))
		w.v >>= 8
	}
}

// An error of the source is passed on, and comes again.
func TestSourceFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("the connection is gone")
	z := zip(t, contents()["text"], 6)
	r := NewReader(io.MultiReader(bytes.NewReader(z[:len(z)/2]), iotest.ErrReader(broken)))
	for range 2 {
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadAll(NewReader(bytes.NewReader(nil))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("an empty source: %v", err)
	}
}

func FuzzInflate(f *testing.F) {
	for _, b := range contents() {
		for _, level := range []int{0, 1, 6, flate.HuffmanOnly} {
			f.Add(zip(f, b[:min(len(b), 3000)], level))
		}
	}
	r := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		f.Add(randomBlock(r, true))
		f.Add(randomBlock(r, false))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		same(t, b)
	})
}

func BenchmarkInflate(b *testing.B) {
	want := contents()["all"]
	z := zip(b, want, 6)
	b.SetBytes(int64(len(want)))
	for b.Loop() {
		if _, err := io.Copy(io.Discard, NewReader(bytes.NewReader(z))); err != nil {
			b.Fatal(err)
		}
	}
}
