// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Files are copied as a tar, in frames: the length in four bytes, and the bytes. A frame
// of length 0 is the end. A tar alone does not tell its end from that of who sends it.
//
// CopyOutSink reads a line, which is empty if the file is there, then frames from the
// sentry, then a CopyResult as JSON. CopyInSink reads that line too; then the client
// sends frames, and the sentry answers with a CopyResult.
const (
	CopyOutSink = "sandboxctl-copy-out"
	CopyInSink  = "sandboxctl-copy-in"
)

// Keys of the configuration of both sinks.
const (
	KeyPath   = "path"
	KeyFollow = "follow"
	// KeyInto says that the path is a directory, and each name of the tar is below it.
	// Without it the first name of the tar is replaced by the last of the path, unless
	// that is a directory.
	KeyInto = "into"
)

// CopyResult is how a copy ended.
type CopyResult struct {
	Error string `json:"error,omitempty"`
	// Skipped are the sockets, fifos and devices, which are not copied.
	Skipped int64 `json:"skipped,omitempty"`
}

// CopyOut is the argument that has the sentry send a file or directory of the sandbox.
func CopyOut(path string, follow bool) SessionArgs {
	s := Session(CopyOutSink)
	s.Config.Sinks[0].Config = map[string]any{KeyPath: path, KeyFollow: follow}
	return s
}

// CopyIn is the argument that has the sentry write files into the sandbox.
func CopyIn(path string, into bool) SessionArgs {
	s := Session(CopyInSink)
	s.Config.Sinks[0].Config = map[string]any{KeyPath: path, KeyInto: into}
	return s
}

// frameSize is the most that a frame has.
const frameSize = 64 << 10

// FrameWriter writes frames. Each write is at least one.
type FrameWriter struct {
	w   io.Writer
	buf []byte
}

// NewFrameWriter returns a writer of frames.
func NewFrameWriter(w io.Writer) *FrameWriter { return &FrameWriter{w: w} }

// Write implements io.Writer.
func (f *FrameWriter) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		n := min(len(b), frameSize)
		f.buf = append(binary.BigEndian.AppendUint32(f.buf[:0], uint32(n)), b[:n]...)
		if _, err := f.w.Write(f.buf); err != nil {
			return written, err
		}
		written, b = written+n, b[n:]
	}
	return written, nil
}

// End writes the end, and what follows it.
func (f *FrameWriter) End(r *CopyResult) error {
	b := make([]byte, 4)
	if r != nil {
		result, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode result: %w", err)
		}
		b = append(b, result...)
	}
	_, err := f.w.Write(b)
	return err
}

// FrameReader reads frames, up to their end.
type FrameReader struct {
	r     io.Reader
	left  int
	ended bool
}

// NewFrameReader returns a reader of frames.
func NewFrameReader(r io.Reader) *FrameReader { return &FrameReader{r: r} }

// Read implements io.Reader. It returns io.EOF for the frame that is the end, and
// io.ErrUnexpectedEOF if who sends them ended before.
func (f *FrameReader) Read(b []byte) (int, error) {
	for f.left == 0 {
		if f.ended {
			return 0, io.EOF
		}
		var size [4]byte
		if _, err := io.ReadFull(f.r, size[:]); err != nil {
			return 0, cut(err)
		}
		n := binary.BigEndian.Uint32(size[:])
		if n > frameSize {
			return 0, fmt.Errorf("a frame of %d bytes, expected at most %d", n, frameSize)
		}
		f.left, f.ended = int(n), n == 0
	}
	n, err := f.r.Read(b[:min(len(b), f.left)])
	f.left -= n
	if err != nil && n == 0 {
		return 0, cut(err)
	}
	return n, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// maxResult bounds a CopyResult in JSON.
const maxResult = 8 << 10

// ReadResult reads what follows the end.
func ReadResult(r io.Reader) (*CopyResult, error) {
	var result CopyResult
	if err := json.NewDecoder(io.LimitReader(r, maxResult)).Decode(&result); err != nil {
		return nil, fmt.Errorf("read result: %w", cut(err))
	}
	return &result, nil
}
