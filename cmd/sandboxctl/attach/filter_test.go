// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bytes"
	"strings"
	"testing"

	"sandboxctl.dev/cmd/sandboxctl/show"
)

// What a terminal would obey is taken out, wherever the output is cut.
func TestTerminalFilter(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain\n":                          "plain\n",
		"two\nlines":                       "two\nlines",
		"tab\tand ünïcode ✓\n":             "tab\tand ünïcode ✓\n",
		"dos\r\n":                          "dos\n",
		"over\rwritten\n":                  "over written\n",
		"\x1b[31mred\n":                    "\x1b[31mred\x1b[0m\n",
		"\x1b[31mred":                      "\x1b[31mred\x1b[0m",
		"\x1b[1;32mgreen\x1b[0m\nno\n":     "\x1b[1;32mgreen\x1b[0m\x1b[0m\nno\n",
		"\x1b]0;title\x07x\n":              " ]0;title x\n",
		"\x1b]52;c;cm0gLXJm\x1b\\\n":       " ]52;c;cm0gLXJm \\\n",
		"\x1b[6n\x1b[c\x1b[2J\x1bc\n":      " [6n [c [2J c\n",
		"\u009b2J\u0085\n":                 " 2J \n",
		"\x9b2J\n":                         "\ufffd2J\n",
		"\x08\x08\x7f\x00\n":               "    \n",
		"half \xe2\x9c":                    "half \ufffd\ufffd",
		"\x1b":                             " ",
		"\x1b[31":                          " [31",
		"\x1b[" + strings.Repeat("1;", 40): " [" + strings.Repeat("1;", 40),
	} {
		whole := filtered(t, in, len(in))
		if whole != want {
			t.Errorf("%q\n became %q,\nexpected %q", in, whole, want)
		}
		for size := 1; size < len(in); size++ {
			if got := filtered(t, in, size); got != want {
				t.Errorf("%q in pieces of %d bytes\n became %q,\nexpected %q", in, size, got, want)
			}
		}
	}
}

func filtered(t *testing.T, in string, size int) string {
	t.Helper()
	var out bytes.Buffer
	f := &terminalFilter{to: &out}
	for rest := []byte(in); len(rest) > 0; {
		n := min(size, len(rest))
		if c, err := f.Write(rest[:n]); c != n || err != nil {
			t.Fatalf("%d, %v", c, err)
		}
		rest = rest[n:]
	}
	must(t, f.Close())
	return out.String()
}

// A terminal that can't be written to is told.
func TestTerminalFilterFails(t *testing.T) {
	t.Parallel()
	f := &terminalFilter{to: fullWriter{}}
	if _, err := f.Write([]byte("x")); err != errFull {
		t.Errorf("%v", err)
	}
	if _, err := f.Write([]byte("\r")); err != nil {
		t.Errorf("%v for what is kept", err)
	}
	if err := f.Close(); err != errFull {
		t.Errorf("%v", err)
	}
}

func FuzzTerminalFilter(f *testing.F) {
	f.Add([]byte("\x1b[31mred\x1b]0;t\x07\r\n\u009b"), 3)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		if size < 1 || size > len(in) {
			size = len(in)
		}
		if len(in) == 0 {
			return
		}
		out := filtered(t, string(in), size)
		for i, c := range []byte(out) {
			if c == 0x1b && show.Colour(out[i:]) == 0 {
				t.Fatalf("%q has an escape that is no colour at %d", out, i)
			}
		}
		for _, r := range out {
			if r < ' ' && r != '\n' && r != '\t' && r != 0x1b || r >= 0x7f && r < 0xa0 {
				t.Fatalf("%q has %q", out, r)
			}
		}
	})
}
