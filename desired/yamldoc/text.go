// SPDX-License-Identifier: Apache-2.0

package yamldoc

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of what is read. With them a file that its author made to cost as much
// as it can takes 100 ms and 32 MiB. Those that the parser could not survive are
// checked before it sees a byte.
const (
	MaxFileBytes     = 1 << 20
	MaxDocumentBytes = 64 << 10
	MaxDocuments     = 500
	MaxFileNodes     = 16000 // values of one file
	MaxNodes         = 4000  // values of one document
	MaxProblems      = 100   // of one file; then the rest is not read
	maxDepth         = 32
	maxMarks         = 3 * MaxNodes // of one document, see marks
)

// Chunks cuts a file into its documents, if it is text of a size that is
// worth it.
func Chunks(file string, data []byte) ([]Chunk, *Problem) {
	fail := func(line, col int, format string, args ...any) ([]Chunk, *Problem) {
		return nil, &Problem{Position: Position{File: file, Line: line, Column: col}, Message: fmt.Sprintf(format, args...)}
	}
	if len(data) > MaxFileBytes {
		return fail(1, 1, "the file has %d bytes, at most %d are allowed; split it", len(data), MaxFileBytes)
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return fail(1, 1, "the file begins with a byte order mark; save it as UTF-8 without one")
	}
	if i, what := notText(data); i >= 0 {
		line, col := 1+bytes.Count(data[:i], []byte{'\n'}), i-bytes.LastIndexByte(data[:i], '\n')
		return fail(line, col, "expected UTF-8 text without control characters, got %s", what)
	}
	return Split(data, MaxDocuments+1), nil
}

// Chunk is the text of one document and the line it begins on.
type Chunk struct {
	Text []byte
	Line int
}

// Split cuts a file at its document markers, which YAML recognises at the
// beginning of a line whatever surrounds them. A blank part before the first
// marker is no document; a blank part after one is, and is refused later:
// that is what a file looks like that was cut short. It returns the first most
// documents.
func Split(data []byte, most int) []Chunk {
	var out []Chunk
	start, startLine, line := 0, 1, 1
	marked := false
	emit := func(end int) {
		if text := data[start:end]; marked || !blank(text) {
			out = append(out, Chunk{Text: text, Line: startLine})
		}
	}
	for i := 0; i < len(data) && len(out) < most; line++ {
		next := len(data)
		if n := bytes.IndexByte(data[i:], '\n'); n >= 0 {
			next = i + n + 1
		}
		if l := data[i:next]; bytes.HasPrefix(l, []byte("---")) && (len(l) == 3 || strings.IndexByte(" \t\r\n", l[3]) >= 0) {
			emit(i)
			start, startLine, marked = i, line, true
		}
		i = next
	}
	if len(out) < most {
		emit(len(data))
	}
	return out
}

// Texts returns the text of each document of a file as its author wrote it, comments
// included, in their order.
func Texts(data []byte) [][]byte {
	var out [][]byte
	for _, c := range Split(data, len(data)+1) {
		out = append(out, bytes.TrimPrefix(bytes.TrimPrefix(c.Text, []byte("---")), []byte("\n")))
	}
	return out
}

// blank says whether a text holds nothing but white space, comments and
// document markers.
func blank(text []byte) bool {
	for l := range bytes.Lines(text) {
		l = bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimPrefix(l, []byte("---")), []byte("...")))
		if len(l) > 0 && l[0] != '#' {
			return false
		}
	}
	return true
}

// notText is the index of the first byte that is not text and what it is, or -1.
// What a terminal obeys, what a reader does not see as what it is (CVE-2021-42574)
// and what YAML takes for the end of a line and editors do not is none.
func notText(data []byte) (int, string) {
	for i := 0; i < len(data); {
		c := data[i]
		if c < utf8.RuneSelf {
			switch {
			case c == '\r' && (i+1 == len(data) || data[i+1] != '\n'):
				return i, "a carriage return without a newline"
			case c < ' ' && c != '\n' && c != '\t' && c != '\r' || c == 0x7f:
				return i, fmt.Sprintf("byte 0x%02x", c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return i, fmt.Sprintf("byte 0x%02x", c)
		case r < 0xa0 || isDeceptive(r):
			return i, fmt.Sprintf("%U", r)
		}
		i += n
	}
	return -1, ""
}

// marks counts the bytes that begin, part or end values where they are no text.
func marks(text []byte) (n int) {
	for _, c := range text {
		switch c {
		case ',', ':', '-', '?', '[', '{', '\n', '\r':
			n++
		}
	}
	return n
}

// NodesAtMost is how many values a text can have at most: one mark can make a
// key and a value of nothing, as each comma does in {a,b,c}.
func NodesAtMost(text []byte) int { return 2*marks(text) + 4 }

// nesting finds brackets nested deeper than a document may have them, before the
// parser recurses into them. Brackets in strings and comments count too, so it
// is only a bound; line is where the limit was passed, from 0.
func nesting(text []byte) (line, deepest int) {
	depth := 0
	for _, c := range text {
		switch c {
		case '\n':
			line++
		case '[', '{':
			if depth++; depth > 4*maxDepth {
				return line, depth
			}
		case ']', '}':
			depth = max(depth-1, 0)
		}
	}
	return 0, 0
}

// firstColumn is where the text of a line begins.
func firstColumn(text []byte, line int) int {
	for l := range bytes.Lines(text) {
		if line--; line == 0 {
			return 1 + len(l) - len(bytes.TrimLeft(l, " \t"))
		}
	}
	return 1
}

// WithoutComment is what is on a line but for space and a comment at its end.
func WithoutComment(line []byte) []byte {
	line, _, _ = bytes.Cut(line, []byte{'#'})
	return bytes.TrimSpace(line)
}

// GuessName finds the name in a text that does not parse. A wrong guess shows
// the problem at another sandbox, and does nothing else. It looks at every line
// once: a regular expression would take the better part of a second for 1 MiB.
func GuessName(text []byte, valid func(string) bool) string {
	if len(text) > MaxDocumentBytes {
		return ""
	}
	inside := false
	for line := range bytes.Lines(text) {
		key, value, _ := bytes.Cut(line, []byte{':'})
		switch {
		case line[0] != ' ' && line[0] != '\t':
			// A key of the top level: metadata, if nothing but a comment follows.
			inside = string(key) == "metadata" && len(WithoutComment(value)) == 0
		case inside && string(bytes.TrimLeft(key, " \t")) == "name":
			if name := string(bytes.Trim(WithoutComment(value), `"'`)); valid(name) {
				return name
			}
		}
	}
	return ""
}

// FirstKey is the line, from 0, on which the mapping of a document begins. It
// knows only the plainest form, a key at the beginning of a line.
func FirstKey(text []byte) (line int, ok bool) {
	for l := range bytes.Lines(text) {
		switch c := l[0]; {
		case c >= 'a' && c <= 'z':
			return line, true
		case c != '#' && len(bytes.TrimSpace(l)) > 0 && string(bytes.TrimSpace(l)) != "---":
			return 0, false
		}
		line++
	}
	return 0, false
}
