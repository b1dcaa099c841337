// SPDX-License-Identifier: Apache-2.0

// Package envfile reads environment files, as container engines take them with
// --env-file and env_file. Its errors have the line and column, and never a piece of
// the file: that may be a secret.
package envfile

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Variable is one variable of a file.
type Variable struct{ Name, Value string }

// Limits of a file. The kernel takes no string of an environment that is longer than
// MaxValue.
const (
	MaxBytes     = 256 << 10
	MaxVariables = 2000
	MaxValue     = 128<<10 - 1
)

// NameRule says what ValidName wants.
const NameRule = "letters, digits, _, - and ., not beginning with a digit, - or ."

// ValidName says whether s may be the name of a variable.
func ValidName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c != '-' && c != '.' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

// Error is what is wrong with a file, and where. Line and Column count from 1.
type Error struct {
	Line, Column int
	Message      string
}

func (e *Error) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message) }

// Parse reads a file of either format. In both, empty lines and lines that begin with #
// mean nothing, a variable is NAME=VALUE, and a name may be there once.
//
// Raw: the value is the rest of the line, as it is.
//
// Otherwise the value may be in quotes, and then have several lines: in '…' everything
// stands for itself, in "…" there are \n, \r, \t, \\, \" and \$. Without quotes, spaces
// around the value and what follows " #" do not belong to it. "export " may be before
// the name. A dollar sign is a dollar sign.
func Parse(text []byte, raw bool) ([]Variable, error) {
	p := &parser{line: 1, raw: raw, first: map[string]int{}}
	if len(text) > MaxBytes {
		return nil, p.errorf(1, "the file has more than %d bytes", MaxBytes)
	}
	// As Windows' editors write it.
	p.rest = strings.TrimPrefix(string(text), "\ufeff")
	if i := invalidUTF8(text); i >= 0 {
		// The sentry is told in JSON, which would put other bytes in their place.
		p.line = 1 + bytes.Count(text[:i], []byte{'\n'})
		return nil, p.errorf(i-bytes.LastIndexByte(text[:i], '\n'), "expected UTF-8; save the file with this encoding")
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		p.line = 1 + bytes.Count(text[:i], []byte{'\n'})
		return nil, p.errorf(i-bytes.LastIndexByte(text[:i], '\n'), "a NUL can't be in an environment")
	}
	for p.rest != "" {
		if err := p.next(); err != nil {
			return nil, err
		}
	}
	return p.out, nil
}

// invalidUTF8 is the index of the first byte that is not UTF-8, -1 if all are.
func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		c, size := utf8.DecodeRune(b[i:])
		if c == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

type parser struct {
	rest  string
	line  int // of the beginning of rest
	raw   bool
	first map[string]int // the line of each name
	out   []Variable
}

func (p *parser) errorf(column int, format string, args ...any) error {
	return &Error{p.line, column, fmt.Sprintf(format, args...)}
}

// takeLine takes the rest of the line, without its end.
func (p *parser) takeLine() string {
	line, rest, _ := strings.Cut(p.rest, "\n")
	p.rest = rest
	return strings.TrimSuffix(line, "\r")
}

const blank = " \t"

// next reads one line, or one variable of several lines.
func (p *parser) next() error {
	began, line := p.line, p.takeLine()
	text := strings.TrimLeft(line, blank)
	if text == "" || text[0] == '#' {
		p.line++
		return nil
	}
	column := len(line) - len(text) + 1
	after, _ := strings.CutPrefix(text, "export")
	if trimmed := strings.TrimLeft(after, blank); len(trimmed) < len(after) && !p.raw {
		column += len(text) - len(trimmed)
		text = trimmed
	}
	name, value, ok := strings.Cut(text, "=")
	switch {
	case !ok:
		return p.errorf(column, "expected NAME=VALUE, there is no =; a variable of the host is not passed on")
	case !ValidName(name):
		return p.errorf(column, "expected the name of a variable (%s) directly before the =", NameRule)
	case p.first[name] != 0:
		return p.errorf(column, "%s is given twice, first in line %d; remove one of them", name, p.first[name])
	case len(p.out) == MaxVariables:
		return p.errorf(column, "the file has more than %d variables", MaxVariables)
	}
	p.first[name] = began
	at := column + len(name) + 1
	if !p.raw {
		var err error
		if value, err = p.value(value, at); err != nil {
			return err
		}
	}
	if len(value) > MaxValue {
		return p.errorf(at, "the value of %s has %d bytes, at most %d are possible", name, len(value), MaxValue)
	}
	p.out = append(p.out, Variable{name, value})
	p.line++
	return nil
}

// value reads what follows an equals sign at a column. text is the rest of its line.
func (p *parser) value(text string, column int) (string, error) {
	trimmed := strings.TrimLeft(text, blank)
	column += len(text) - len(trimmed)
	switch {
	case trimmed == "" || trimmed[0] == '#' && len(trimmed) < len(text):
		return "", nil
	case trimmed[0] == '"' || trimmed[0] == '\'':
		return p.quoted(trimmed[0], trimmed[1:], column)
	}
	return unquoted(trimmed), nil
}

// unquoted ends before a comment.
func unquoted(s string) string {
	for i := 1; i < len(s); i++ {
		if s[i] == '#' && strings.IndexByte(blank, s[i-1]) >= 0 {
			s = s[:i]
			break
		}
	}
	return strings.TrimRight(s, blank)
}

// quoted reads to the closing quote, over lines if need be. An error about what is not
// closed is told where it was opened.
func (p *parser) quoted(quote byte, text string, column int) (string, error) {
	opened, openedAt := p.line, column
	at := column + 1
	var out strings.Builder
	for {
		i := strings.IndexAny(text, `\`+string(quote))
		switch {
		case i < 0:
			out.WriteString(text)
			if p.rest == "" {
				p.line = opened
				return "", p.errorf(openedAt, "the quote %c is not closed", quote)
			}
			out.WriteByte('\n')
			text, at = p.takeLine(), 1
			p.line++
		case text[i] == quote:
			out.WriteString(text[:i])
			return out.String(), p.nothingAfter(text[i+1:], at+i+1)
		default: // a backslash
			out.WriteString(text[:i])
			if quote == '\'' {
				out.WriteByte('\\')
				text, at = text[i+1:], at+i+1
				continue
			}
			c, size := utf8.DecodeRuneInString(text[i+1:])
			escaped, ok := escapes[c]
			if !ok {
				return "", p.errorf(at+i, `expected one of \n, \r, \t, \\, \" and \$ after a backslash in "…"; write \\ for a backslash, or use '…'`)
			}
			out.WriteByte(escaped)
			text, at = text[i+1+size:], at+i+1+size
		}
	}
}

var escapes = map[rune]byte{'n': '\n', 'r': '\r', 't': '\t', '\\': '\\', '"': '"', '$': '$'}

// nothingAfter lets a comment follow a closing quote.
func (p *parser) nothingAfter(text string, column int) error {
	trimmed := strings.TrimLeft(text, blank)
	if trimmed == "" || trimmed[0] == '#' && len(trimmed) < len(text) {
		return nil
	}
	return p.errorf(column+len(text)-len(trimmed), "expected the end of the line after the closing quote")
}
