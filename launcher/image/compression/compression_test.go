// SPDX-License-Identifier: Apache-2.0

package compression

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// What becomes far too large for what it was is ended early.
func TestRatio(t *testing.T) {
	t.Parallel()
	raw := &counted{n: 1 << 20}
	b := &bounded{ReadCloser: io.NopCloser(endless{}), in: raw}
	n, err := io.Copy(io.Discard, b)
	if err == nil || n < freeBytes || n > freeBytes+1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	raw.n = freeBytes // one that is large is no bomb
	if n, err := io.CopyN(io.Discard, &bounded{ReadCloser: io.NopCloser(endless{}), in: raw}, freeBytes*2); err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// What tools write by default is decompressed with room for two windows; what asks for more
// memory gets it once.
func TestSmallWindow(t *testing.T) {
	t.Parallel()
	text := bytes.Repeat([]byte("some text "), 2<<20)
	encode := func(o ...zstd.EOption) []byte {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out, o...)
		if err == nil {
			_, err = w.Write(text)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	single, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		b    []byte
		want bool
	}{
		"fastest":                 {encode(zstd.WithEncoderLevel(zstd.SpeedFastest)), true},
		"default":                 {encode(), true},
		"best":                    {encode(zstd.WithEncoderLevel(zstd.SpeedBestCompression)), true},
		"a window of 32 MiB":      {encode(zstd.WithWindowSize(32 << 20)), false},
		"one segment, short":      {single.EncodeAll(text[:1<<20], nil), true},
		"one segment of 20 MiB":   {single.EncodeAll(text, nil), false},
		"a frame that is skipped": {append([]byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x"), encode()...), false},
		"the beginning of one":    {encode()[:4], false},
	} {
		if got := smallWindow(bufio.NewReader(bytes.NewReader(c.b))); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		r, err := Open(bytes.NewReader(c.b))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if name != "the beginning of one" && (err != nil || !bytes.HasPrefix(text, got) || len(got) == 0) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}
