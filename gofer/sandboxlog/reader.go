// SPDX-License-Identifier: Apache-2.0

package sandboxlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// Entry is one parsed line.
type Entry struct {
	At     time.Time
	Stream Stream
	Full   bool
	Text   []byte
}

// Parse reads one line without its newline.
func Parse(line []byte) (Entry, error) {
	at, rest, ok1 := bytes.Cut(line, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tag, text, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 || len(tag) != 1 || (tag[0] != 'F' && tag[0] != 'P') {
		return Entry{}, fmt.Errorf("parse log line: not \"time stream F|P text\"")
	}
	t, err := time.Parse(time.RFC3339Nano, string(at))
	if err != nil {
		return Entry{}, fmt.Errorf("parse log line: %w", err)
	}
	switch s := Stream(stream); s {
	case Stdout, Stderr, Internal:
		return Entry{At: t, Stream: s, Full: tag[0] == 'F', Text: text}, nil
	default:
		return Entry{}, fmt.Errorf("parse log line: unknown stream %q", stream)
	}
}

// maxEntry bounds a line as read, whatever is in the file.
const maxEntry = maxLine + 128

// Scan calls fn for every whole line of r that is one of ours and returns how
// many bytes all lines were. An unfinished last line is not counted: it can be
// read again when it is whole.
func Scan(r io.Reader, fn func(Entry) error) (int64, error) {
	br := bufio.NewReaderSize(r, maxEntry)
	var off, long int64 // long is what was read of a line that is too long
	for {
		line, err := br.ReadSlice('\n')
		switch {
		case err == nil:
			off += long + int64(len(line))
			tooLong := long > 0
			long = 0
			e, perr := Parse(line[:len(line)-1])
			if perr != nil || tooLong {
				continue
			}
			if err := fn(e); err != nil {
				return off, err
			}
		case errors.Is(err, bufio.ErrBufferFull):
			long += int64(len(line))
		case errors.Is(err, io.EOF):
			return off, nil
		default:
			return off, fmt.Errorf("read log: %w", err)
		}
	}
}

// maxFirst bounds how much of a log is read for its first line.
const maxFirst = 64 << 10

// ErrNotFirst says that the first line of a log is not there: nothing was written yet,
// or what was is in an older file or was dropped.
var ErrNotFirst = errors.New("the first line is not in the log")

// First is when the application wrote the first line of the log name in fsys.
func First(fsys fs.FS, name string) (at time.Time, err error) {
	if _, err := fs.Stat(fsys, name+".1"); !errors.Is(err, fs.ErrNotExist) {
		return at, errors.Join(ErrNotFirst, err)
	}
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return at, ErrNotFirst
	}
	if err != nil {
		return at, fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	enough := errors.New("enough")
	_, err = Scan(io.LimitReader(f, maxFirst), func(e Entry) error {
		if e.Stream != Internal { // which says that lines were dropped
			at = e.At
		}
		return enough
	})
	if err != nil && !errors.Is(err, enough) {
		return at, err
	}
	if at.IsZero() {
		return at, ErrNotFirst
	}
	return at, nil
}
