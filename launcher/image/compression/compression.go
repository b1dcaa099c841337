// SPDX-License-Identifier: Apache-2.0

// Package compression decompresses what comes from somebody who is not trusted: layers
// and archives of images. Memory and growth are bounded.
package compression

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Errors of what is read.
var (
	// ErrInvalid says that it can't be decompressed.
	ErrInvalid = errors.New("it can't be decompressed")
	// ErrLimit says that it becomes larger than what is allowed.
	ErrLimit = errors.New("the image is larger than allowed")
)

// Bounds of what something small may become. No file system packs better by a factor of
// 250 except one made of zeros, of which an honest image has less than a GiB.
const (
	freeBytes = 1 << 30
	mostRatio = 250
	// mostWindow is how much memory it may ask for to be decompressed. The highest level
	// of zstd needs it, and no tool uses more without being told.
	mostWindow = 128 << 20
	// usualWindow is that of all levels that tools use by default.
	usualWindow = 8 << 20
)

// Open finds out by the first bytes whether something is compressed with gzip or zstd,
// and how: media types and names lie. What is not is read as it is.
func Open(r io.Reader) (io.ReadCloser, error) {
	in := &counted{r: r}
	b := bufio.NewReaderSize(in, 128<<10)
	head, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case isGzip(head):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return &bounded{ReadCloser: z, in: in}, nil
	case isZstd(head):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(!smallWindow(b)), zstd.WithDecoderMaxWindow(mostWindow))
		if err != nil {
			return nil, err
		}
		return &bounded{ReadCloser: z.IOReadCloser(), in: in}, nil
	case isOther(head):
		return nil, fmt.Errorf("%w: it is compressed with bzip2 or xz; use gzip or zstd", ErrInvalid)
	}
	return io.NopCloser(b), nil
}

// smallWindow says whether two windows may be in memory. With one and a megabyte, which is
// the other way, the decoder moves a whole window in memory for each megabyte: that takes
// as long as to decompress it.
func smallWindow(b *bufio.Reader) bool {
	head, _ := b.Peek(zstd.HeaderMaxSize) // it may be shorter
	var h zstd.Header
	if h.Decode(head) != nil || h.Skippable {
		return false
	}
	if h.SingleSegment {
		return h.FrameContentSize <= usualWindow
	}
	return h.WindowSize <= usualWindow
}

// Is says whether what begins with these four bytes is compressed.
func Is(head []byte) bool { return isGzip(head) || isZstd(head) || isOther(head) }

func isGzip(head []byte) bool { return bytes.HasPrefix(head, []byte{0x1f, 0x8b}) }

// isZstd is true of a frame, and of one that is skipped, which may come first.
func isZstd(head []byte) bool {
	return bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) || len(head) == 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18
}

// isOther is true of bzip2 and xz.
func isOther(head []byte) bool {
	return bytes.HasPrefix(head, []byte("BZh")) || bytes.HasPrefix(head, []byte{0xfd, '7', 'z'})
}

// counted counts what is read.
type counted struct {
	r   io.Reader
	n   int64
	err error // the last
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n, c.err = c.n+int64(n), err
	return n, err
}

// bounded ends what becomes far too large for what it was.
type bounded struct {
	io.ReadCloser
	in *counted
	n  int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if b.n > freeBytes && b.n/mostRatio > b.in.n {
		return 0, fmt.Errorf("%w: %d bytes have become more than %d MiB", ErrLimit, b.in.n, b.n>>20)
	}
	if err != nil && !errors.Is(err, io.EOF) && (b.in.err == nil || errors.Is(b.in.err, io.EOF)) {
		// It was read without an error: what is wrong is in it.
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return n, err
}
