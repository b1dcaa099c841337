// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/gofer/sandboxlog"
)

// checkLines fails the test if a terminal would obey anything in lines of text
// but tabs and colours, or if a colour outlives its line.
func checkLines(t *testing.T, s string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Fatalf("%q is no text", s)
	}
	for line := range strings.Lines(s) {
		line = strings.TrimSuffix(line, "\n")
		coloured := false
		for i, r := range line {
			switch {
			case r == '\x1b':
				n := show.Colour(line[i:])
				if n == 0 {
					t.Fatalf("%q", line)
				}
				coloured = line[i:i+n] != "\x1b[0m"
			case r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0):
				t.Fatalf("%q", line)
			}
		}
		if coloured {
			t.Fatalf("the colours of %q go on", line)
		}
	}
}

// Whatever is in the log of a sandbox, of which a gofer that was taken over can
// make anything: what a terminal gets is text.
func FuzzLogs(f *testing.F) {
	const at = "2026-01-02T03:04:05.000000006Z stdout "
	f.Add([]byte(at+"F hello\n"), -1, false)
	f.Add([]byte(at+"P \x1b[2\n"+at+"F J\n"), -1, true)
	f.Add([]byte(at+"P \xc2\n"+at+"F \x9b2J\n"), 1, true)
	f.Add([]byte(at+"F \x1b[8mhidden\n"+at+"F \x1b]0;title\x07\x1bc\x1b[6n\n"), 2, false)
	f.Add([]byte(at+"P \x1b[31mred\n"), 0, false)
	f.Add([]byte("9999-12-31T23:59:59-23:59 stderr F late\n0000-01-01T00:00:00+23:59 sandboxctl F early\n"), -1, true)
	f.Add([]byte(at+"F "+strings.Repeat("\u202e", 2000)+"\n"), -1, false)
	f.Fuzz(func(t *testing.T, log []byte, tail int, timestamps bool) {
		var out bytes.Buffer
		p := &logPrinter{out: bufio.NewWriter(&out), terminal: true, timestamps: timestamps}
		if _, err := sandboxlog.Scan(bytes.NewReader(log), p.keep(tail)); err != nil {
			t.Fatal(err)
		}
		if err := p.flush(); err != nil {
			t.Fatal(err)
		}
		checkLines(t, out.String())
		if out.Len() > 64*(len(log)+1) {
			t.Fatalf("%d bytes of %d", out.Len(), len(log))
		}
		// To a file it is what was written.
		out.Reset()
		p = &logPrinter{out: bufio.NewWriter(&out)}
		if _, err := sandboxlog.Scan(bytes.NewReader(log), p.print); err != nil {
			t.Fatal(err)
		}
		if err := p.flush(); err != nil || out.Len() > len(log) {
			t.Fatalf("%d bytes of %d: %v", out.Len(), len(log), err)
		}
	})
}
