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

// Read calls fn for every entry of name.1 and name in fsys, oldest first. A
// line that is not one of ours is passed over. A file that does not exist is
// empty. It returns the number of bytes of name that were read, for Follow.
func Read(fsys fs.FS, name string, fn func(Entry) error) (int64, error) {
	if _, err := readFile(fsys, name+".1", fn); err != nil {
		return 0, err
	}
	return readFile(fsys, name, fn)
}

func readFile(fsys fs.FS, name string, fn func(Entry) error) (int64, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	return Scan(f, fn)
}

// Scan calls fn for every whole line of r and returns how many bytes they
// were. An unfinished last line is not counted: it can be read again when it
// is whole.
func Scan(r io.Reader, fn func(Entry) error) (int64, error) {
	br := bufio.NewReaderSize(r, maxEntry)
	var off int64
	for {
		line, err := br.ReadSlice('\n')
		switch {
		case err == nil:
			off += int64(len(line))
			e, perr := Parse(line[:len(line)-1])
			if perr != nil {
				continue
			}
			if err := fn(e); err != nil {
				return off, err
			}
		case errors.Is(err, bufio.ErrBufferFull):
			off += int64(len(line)) // longer than any of ours: pass over
		case errors.Is(err, io.EOF):
			return off, nil
		default:
			return off, fmt.Errorf("read log: %w", err)
		}
	}
}
