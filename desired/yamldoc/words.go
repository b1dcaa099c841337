// SPDX-License-Identifier: Apache-2.0

package yamldoc

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable says whether s has nothing that a terminal obeys or a reader does
// not see as what it is, but for the characters allowed.
func Printable(s, allowed string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return (unicode.IsControl(r) || isDeceptive(r)) && !strings.ContainsRune(allowed, r)
	})
}

// isDeceptive says whether a character ends lines or changes the direction of
// what follows.
func isDeceptive(r rune) bool {
	return r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

// Shown is a text with everything replaced that is not printable.
func Shown(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !Printable(string(r), "") {
			return '?'
		}
		return r
	}, s)
}

// Clip shortens a text for a message.
func Clip(s string) string {
	if len(s) <= 60 {
		return s
	}
	n := 60
	for n > 60-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
