// SPDX-License-Identifier: Apache-2.0

package show

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/untrusted"
)

// Clean makes text from a sandbox or a manifest fit for one line of a
// terminal, where control characters would be obeyed.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if untrusted.Obeyed(r) {
			return ' '
		}
		return r
	}, s)
}

// CleanLines is Clean for text of several lines.
func CleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = Clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

// CleanLine is Clean for a line of a log, which may have tabs and colours: all
// escape sequences but colours are taken out. What is no UTF-8 is replaced: the
// halves of a control character, in two parts of a line, would make it whole.
func CleanLine(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if n := Colour(s[i:]); n > 0 {
			b.WriteString(s[i : i+n])
			i += n
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == '\t' || r >= ' ' && (r < 0x7f || r >= 0xa0) {
			b.WriteRune(r)
		} else {
			b.WriteByte(' ')
		}
		i += n
	}
	return b.String()
}

// Colour is the length of the colour sequence that s begins with, or 0.
func Colour(s string) int {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0
	}
	for i := 2; i < len(s) && i < 32; i++ {
		switch c := s[i]; {
		case c == 'm':
			return i + 1
		case c != ';' && (c < '0' || c > '9'):
			return 0
		}
	}
	return 0
}

// IsTerminal says whether a stream is one.
func IsTerminal(stream any) bool {
	f, ok := stream.(interface{ Fd() uintptr })
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Age says how long ago something was, as kubectl does.
func Age(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Bytes formats an amount of memory.
func Bytes(n int64) string {
	switch {
	case n < 0:
		return ""
	case n < 1<<20:
		return fmt.Sprintf("%.1fKi", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1fMi", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2fGi", float64(n)/(1<<30))
}
