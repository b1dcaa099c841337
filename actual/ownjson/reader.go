// SPDX-License-Identifier: Apache-2.0

package ownjson

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// reader is at a place of a text. What it reads after it has failed counts for nothing.
type reader struct {
	s  string
	at int
	// begun says that a bracket was opened just before: no comma is due.
	begun  bool
	failed bool
	deep   int
}

// maxDeep bounds the brackets within brackets: far fewer are written.
const maxDeep = 64

// peek is the next byte, 0 at the end.
func (r *reader) peek() byte {
	if r.failed || r.at >= len(r.s) {
		return 0
	}
	return r.s[r.at]
}

// take takes the one byte that must come.
func (r *reader) take(c byte) {
	if r.peek() != c {
		r.failed = true
		return
	}
	r.at++
}

func (r *reader) open(bracket byte) {
	r.take(bracket)
	r.begun = true
	if r.deep++; r.deep > maxDeep {
		r.failed = true
	}
}

func (r *reader) close(bracket byte) {
	r.take(bracket)
	r.begun = false
	r.deep--
}

// next says whether an element follows, or takes the bracket that ends them.
func (r *reader) next(bracket byte) bool {
	if r.peek() == bracket {
		r.close(bracket)
		return false
	}
	if !r.begun {
		r.take(',')
	}
	r.begun = false
	return !r.failed
}

// key takes the name of a field if that is what comes next.
func (r *reader) key(quoted string) bool {
	at := r.at
	if !r.begun {
		if r.peek() != ',' {
			return false
		}
		at++
	}
	if r.failed || len(r.s)-at < len(quoted) || r.s[at:at+len(quoted)] != quoted {
		return false
	}
	r.at, r.begun = at+len(quoted), false
	return true
}

// text reads a string.
func (r *reader) text() string {
	from := r.at
	lit, plain := r.quoted()
	if r.failed {
		return ""
	}
	if plain {
		return r.s[from+1 : r.at-1]
	}
	var s string
	r.failed = json.Unmarshal([]byte(lit), &s) != nil
	return s
}

// quoted takes a string as it is written. It is plain if every byte stands for itself.
func (r *reader) quoted() (lit string, plain bool) {
	from := r.at
	r.take('"')
	plain = true
	ascii := true
	// Most of a text is in strings: variables that stay in registers take half of the time.
	text, end := r.s, len(r.s)
	if r.failed {
		end = 0
	}
	for i := r.at; i < end; i++ {
		switch c := text[i]; {
		case c == '"':
			r.at = i + 1
			lit = text[from:r.at]
			// Other bytes than UTF-8 are replaced by encoding/json.
			r.failed = !ascii && !utf8.ValidString(lit)
			return lit, plain
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			end = 0
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	r.failed = true
	return "", false
}

// boolean reads true or false.
func (r *reader) boolean() bool {
	if r.word("true") {
		return true
	}
	if !r.word("false") {
		r.failed = true
	}
	return false
}

func (r *reader) word(w string) bool {
	if r.failed || len(r.s)-r.at < len(w) || r.s[r.at:r.at+len(w)] != w {
		return false
	}
	r.at += len(w)
	return true
}

// integer reads a whole number.
func (r *reader) integer() int64 {
	lit, whole := r.number()
	if r.failed || !whole {
		r.failed = true
		return 0
	}
	n, err := strconv.ParseInt(lit, 10, 64)
	r.failed = err != nil
	return n
}

func (r *reader) float() float64 {
	lit, _ := r.number()
	if r.failed {
		return 0
	}
	f, err := strconv.ParseFloat(lit, 64)
	r.failed = err != nil
	return f
}

// number takes a number as it is written. It is whole without a point and an exponent.
func (r *reader) number() (lit string, whole bool) {
	from := r.at
	if r.peek() == '-' {
		r.at++
	}
	if r.peek() == '0' {
		r.at++
	} else {
		r.digits()
	}
	whole = true
	if r.peek() == '.' {
		whole = false
		r.at++
		r.digits()
	}
	if c := r.peek(); c == 'e' || c == 'E' {
		whole = false
		r.at++
		if c := r.peek(); c == '+' || c == '-' {
			r.at++
		}
		r.digits()
	}
	return r.s[from:r.at], whole
}

// digits takes at least one.
func (r *reader) digits() {
	from := r.at
	for c := r.peek(); c >= '0' && c <= '9'; c = r.peek() {
		r.at++
	}
	r.failed = r.failed || r.at == from
}

// raw takes any value as it is written, but null: what that means depends on the type.
func (r *reader) raw() string {
	from := r.at
	if r.peek() == 'n' {
		r.failed = true
	}
	r.skip()
	if r.failed {
		return ""
	}
	return r.s[from:r.at]
}

// unmarshal has v read a value.
func (r *reader) unmarshal(v json.Unmarshaler) {
	lit := r.raw()
	r.failed = r.failed || v.UnmarshalJSON([]byte(lit)) != nil
}

// skip takes a value of any type.
func (r *reader) skip() {
	switch c := r.peek(); c {
	case '{':
		for r.open('{'); r.next('}'); {
			r.skipText()
			r.take(':')
			r.skip()
		}
	case '[':
		for r.open('['); r.next(']'); {
			r.skip()
		}
	case '"':
		r.skipText()
	case 't', 'f':
		r.boolean()
	case 'n':
		r.failed = !r.word("null")
	default:
		r.number()
	}
}

// skipText takes a string of which only the form counts.
func (r *reader) skipText() {
	if lit, plain := r.quoted(); !r.failed && !plain {
		r.failed = !json.Valid([]byte(lit))
	}
}
