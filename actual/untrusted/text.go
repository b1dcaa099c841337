// SPDX-License-Identifier: Apache-2.0

package untrusted

import (
	"strings"
	"unicode"
)

// Obeyed says whether a terminal does something else with a character than to
// show it: control characters, those that end lines for some, and those that
// change the direction of what follows.
func Obeyed(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// Line makes text from a sandbox or its processes fit for one line of a log or
// terminal, where control characters would be obeyed. Of longer text it keeps the
// first limit bytes and an ellipsis.
func Line(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if Obeyed(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(s))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
