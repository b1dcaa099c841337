// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"sandboxctl.dev/cmd/sandboxctl/show"
)

// terminalFilter takes out of a command's output what a terminal obeys, but for
// colours: a sandbox must not rename the window, answer a question that the
// terminal asks, or type for the user. It is for output that was not meant for a
// terminal: a command that has one (-t) is not filtered.
type terminalFilter struct {
	to       io.Writer
	kept     []byte // the beginning of something, in two writes
	coloured bool
}

const colourOff = "\x1b[0m"

// maxKept is the longest beginning that can become harmless text.
const maxKept = 32

func (f *terminalFilter) Write(b []byte) (int, error) {
	text := slices.Concat(f.kept, b)
	cut := len(text) - unfinished(text)
	f.kept = append([]byte(nil), text[cut:]...)
	if err := f.write(string(text[:cut])); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close writes what was kept, and ends colours.
func (f *terminalFilter) Close() error {
	text := string(f.kept)
	f.kept = nil
	if err := f.write(text); err != nil || !f.coloured {
		return err
	}
	_, err := io.WriteString(f.to, colourOff)
	return err
}

func (f *terminalFilter) write(text string) error {
	var out strings.Builder
	for line := range strings.Lines(text) {
		whole := strings.HasSuffix(line, "\n")
		if whole {
			line = strings.TrimSuffix(line[:len(line)-1], "\r")
		}
		line = show.CleanLine(line)
		f.coloured = f.coloured || strings.Contains(line, "\x1b[")
		out.WriteString(line)
		if whole {
			if f.coloured {
				// What conceals must not conceal the next line.
				out.WriteString(colourOff)
				f.coloured = false
			}
			out.WriteByte('\n')
		}
	}
	if out.Len() == 0 {
		return nil
	}
	_, err := io.WriteString(f.to, out.String())
	return err
}

// unfinished is how many bytes at the end of text may be the beginning of a
// character, of a colour, or of the end of a line.
func unfinished(text []byte) int {
	if bytes.HasSuffix(text, []byte("\r")) {
		return 1
	}
	if i := bytes.LastIndexByte(text, '\x1b'); i >= 0 && len(text)-i < maxKept && beginsColour(text[i:]) {
		return len(text) - i
	}
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				return n
			}
			break
		}
	}
	return 0
}

// beginsColour says whether b, which begins with an escape, is a colour sequence
// without its end.
func beginsColour(b []byte) bool {
	for i, c := range b[1:] {
		if i == 0 && c != '[' || i > 0 && c != ';' && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
