// SPDX-License-Identifier: Apache-2.0

// Package erofs writes read-only file systems in the EROFS format, in the part of it
// that gVisor can serve.
//
// gVisor serves files whose content is in whole blocks (it maps them), and neither
// compression nor extended attributes. github.com/erofs/go-erofs writes small files
// beside their inodes, which gVisor can't map, has no hard links, and writes all
// content twice. It reads what this package writes, and the tests compare.
//
// Content comes first and is written once, when it is there. The tree is in memory
// until Finish writes it behind the content.
package erofs

import (
	"errors"
	"io"
	"slices"

	"golang.org/x/sys/unix"
)

// BlockSize is the size of a block. gVisor takes multiples of a page.
const BlockSize = 4096

// Limits of the format, and of Linux.
const (
	// MaxName is the longest name of a file.
	MaxName = 255
	// MaxTarget is the longest target of a symbolic link.
	MaxTarget = 4095
	// maxBlocks is how many blocks a 32-bit address can name.
	maxBlocks = 1<<32 - 1
)

// ErrTooLarge says that the content does not fit into the format.
var ErrTooLarge = errors.New("more than 16 TiB do not fit into one EROFS file")

// Node is a file of the tree. The same node under several names is a hard link.
type Node struct {
	// Mode has the type and the permissions, as in struct stat.
	Mode     uint16
	UID, GID uint32
	// Seconds and Nanos are the time of the last change.
	Seconds int64
	Nanos   uint32
	// Content is of a regular file.
	Content Content
	// Target is of a symbolic link.
	Target string
	// Children are of a directory.
	Children map[string]Entry

	place place
}

// Entry is a name in a directory.
type Entry struct {
	*Node
	// Mark is the caller's.
	Mark uint32
}

// Content is where the content of a file is.
type Content struct {
	Size  int64
	block uint32
}

// extent is where the content is in the file.
func (c Content) extent() (offset, length int64) {
	return int64(c.block) * BlockSize, roundUp(c.Size, BlockSize)
}

// Type is the type of the file in its mode.
func (n *Node) Type() uint16 { return n.Mode & unix.S_IFMT }

// IsDir says whether it is a directory.
func (n *Node) IsDir() bool { return n.Type() == unix.S_IFDIR }

// File is what an EROFS file is written to.
type File interface {
	io.WriterAt
	Truncate(size int64) error
	// Punch gives back the disk space of a part that nobody reads.
	Punch(offset, length int64) error
}

// Writer writes one EROFS file.
type Writer struct {
	out  File
	next int64 // where the next content goes, at the start of a block
	// buf is what is to be written at start. Most files are smaller than what is worth a
	// call, and a file system takes large pieces with less work.
	buf   []byte
	start int64
}

const (
	// bufSize is how much is written at a time, and at a multiple of what.
	bufSize = 1 << 20
	// holeSize is what is left out of the file if it is all zeros.
	holeSize = 64 << 10
)

// NewWriter returns a writer to an empty file.
func NewWriter(out File) *Writer {
	return &Writer{out: out, next: BlockSize, start: BlockSize, buf: make([]byte, 0, bufSize)}
}

// punch gives back the space of content that has been appended, and that no file has:
// a later layer has removed or replaced it.
func (w *Writer) punch(nodes []*Node, end int64) error {
	var used []Content
	for _, n := range nodes {
		if n.Content.Size > 0 {
			used = append(used, n.Content)
		}
	}
	slices.SortFunc(used, func(a, b Content) int { return int(int64(a.block) - int64(b.block)) })
	from := int64(BlockSize)
	for _, c := range used {
		at, n := c.extent()
		if at > from {
			if err := w.out.Punch(from, at-from); err != nil {
				return err
			}
		}
		from = at + n
	}
	if end > from {
		return w.out.Punch(from, end-from)
	}
	return nil
}

// Append reads the content of a file, which has this size. Large parts of zeros are left
// out of the file, which has holes there.
func (w *Writer) Append(r io.Reader, size int64) (Content, error) {
	c := Content{Size: size, block: uint32(w.next / BlockSize)}
	if (w.next+size)/BlockSize >= maxBlocks {
		return Content{}, ErrTooLarge
	}
	for left := size; left > 0; {
		b, err := w.room(left)
		if err != nil {
			return Content{}, err
		}
		if _, err := io.ReadFull(r, b); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return Content{}, err
		}
		left -= int64(len(b))
	}
	w.next += roundUp(size, BlockSize)
	// The end of the last block is no part of the file, and nothing of another one either.
	for pad := w.next - w.start - int64(len(w.buf)); pad > 0; {
		b, err := w.room(pad)
		if err != nil {
			return Content{}, err
		}
		clear(b)
		pad -= int64(len(b))
	}
	return c, nil
}

// room returns where the next bytes go, at most n of them.
func (w *Writer) room(n int64) ([]byte, error) {
	end := int(bufSize - w.start%bufSize)
	if len(w.buf) == end {
		if err := w.flush(); err != nil {
			return nil, err
		}
		end = bufSize
	}
	from := len(w.buf)
	w.buf = w.buf[:min(int64(end), int64(from)+n)]
	return w.buf[from:], nil
}

// flush writes what is gathered, without what is zeros.
func (w *Writer) flush() error {
	for b := w.buf; len(b) > 0; {
		n, zero := run(b)
		if !zero {
			if _, err := w.out.WriteAt(b[:n], w.start); err != nil {
				return err
			}
		}
		b, w.start = b[n:], w.start+int64(n)
	}
	w.buf = w.buf[:0]
	return nil
}

// run is how many bytes from the start of b on are zeros, or are not, in large parts.
func run(b []byte) (n int, zero bool) {
	for n < len(b) {
		part := b[n:min(n+holeSize, len(b))]
		switch is := allZero(part); {
		case n == 0:
			zero = is
		case is != zero:
			return n, zero
		}
		n += len(part)
	}
	return n, zero
}

var zeros [4096]byte

func allZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if string(b[:n]) != string(zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
