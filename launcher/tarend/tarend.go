// SPDX-License-Identifier: Apache-2.0

// Package tarend looks at what comes after the end of a tar. Two blocks of zeros are that
// end, and disk images and file systems begin with them: read as a tar, they are one
// without files.
package tarend

import (
	"bytes"
	"errors"
	"io"
)

// ErrNoTar says that what looked like a tar without files is something else.
var ErrNoTar = errors.New("it is no tar: it begins with zeros, as disk images and file systems do, or with an empty tar in front of something else")

// Behind takes what comes after the end of a tar. An empty one has nothing but zeros there.
type Behind struct {
	// Empty says that the tar had no entry.
	Empty bool
}

// Write implements io.Writer.
func (t Behind) Write(b []byte) (int, error) {
	if t.Empty && len(bytes.TrimLeft(b, "\x00")) > 0 {
		return 0, ErrNoTar
	}
	return len(b), nil
}

// block is the unit of a tar.
const block = 512

// Reader reads a tar and keeps the end of what was read.
type Reader struct {
	From io.Reader
	last []byte
}

// Read implements io.Reader.
func (t *Reader) Read(b []byte) (int, error) {
	n, err := t.From.Read(b)
	t.last = append(t.last, b[max(n-block, 0):n]...)
	t.last = t.last[max(len(t.last)-block, 0):]
	return n, err
}

// Ends says whether the tar has its end, which is a block of zeros. What a program that failed
// has written has none, also if it is nothing at all.
func (t *Reader) Ends() bool {
	return len(t.last) == block && len(bytes.TrimLeft(t.last, "\x00")) == 0
}
