// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/gofer/sandboxlog"
)

var someTime = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func TestSinceTime(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Time{
		"": {}, "0": someTime, "5m": someTime.Add(-5 * time.Minute), "1h30m0.5s": someTime.Add(-90*time.Minute - 500*time.Millisecond),
		"2026-01-02T03:04:05Z":           time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02T03:04:05.000000006Z": someTime,
		"2026-01-02T05:04:05+02:00":      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"1d":                             someTime.Add(-24 * time.Hour),
		"1.5d":                           someTime.Add(-36 * time.Hour),
		"1w2d3h":                         someTime.Add(-(9*24 + 3) * time.Hour),
		"2026-01-02":                     time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
		"2026-01-02 03:04":               time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC),
		"2026-01-02 03:04:05":            time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02T03:04":               time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC),
		"12:00":                          time.Date(someTime.Year(), someTime.Month(), someTime.Day(), 12, 0, 0, 0, time.UTC),
	} {
		if got, err := sinceTime(s, someTime); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v %v, expected %v", s, got, err, want)
		}
	}
	for _, bad := range []string{"5", "-5m", "5 m", "yesterday", "-1d", "d", "xd", "1d2w", "1dx", "2026-13-02", "2026-01-02 25:00", "99999999d"} {
		var e *exit.Error
		if got, err := sinceTime(bad, someTime); !errors.As(err, &e) || e.Code != exit.Usage {
			t.Errorf("%q: %v %v", bad, got, err)
		}
	}
}

// fullWriter is a stream nothing can be written to.
type fullWriter struct{}

var errFull = errors.New("full")

func (fullWriter) Write([]byte) (int, error) { return 0, errFull }

func line(stream sandboxlog.Stream, second int, text string, full bool) sandboxlog.Entry {
	return sandboxlog.Entry{At: someTime.Add(time.Duration(second) * time.Second), Stream: stream, Text: []byte(text), Full: full}
}

func TestLogPrinter(t *testing.T) {
	t.Parallel()
	entries := []sandboxlog.Entry{
		line(sandboxlog.Stdout, 0, "one", true),
		line(sandboxlog.Stderr, 1, "tw", false),
		line(sandboxlog.Stderr, 2, "o", true),
		line(sandboxlog.Stdout, 3, "\x1b[2Jthree", true),
		line(sandboxlog.Stdout, 4, "fo", false),
	}
	stamp := func(s int) string {
		return someTime.Add(time.Duration(s)*time.Second).Format(sandboxlog.TimeFormat) + " "
	}
	for name, c := range map[string]struct {
		p    logPrinter
		tail int
		want string
	}{
		"all":       {logPrinter{}, -1, "one\ntwo\n\x1b[2Jthree\nfo"},
		"terminal":  {logPrinter{terminal: true}, -1, "one\ntwo\n [2Jthree\nfo"},
		"colours":   {logPrinter{terminal: true}, -1, "one\ntwo\n [2Jthree\nfo"},
		"times":     {logPrinter{timestamps: true}, -1, stamp(0) + "one\n" + stamp(1) + "two\n" + stamp(3) + "\x1b[2Jthree\n" + stamp(4) + "fo"},
		"tail 0":    {logPrinter{}, 0, ""},
		"tail 1":    {logPrinter{}, 1, "fo"},
		"tail 2":    {logPrinter{}, 2, "\x1b[2Jthree\nfo"},
		"tail 3":    {logPrinter{}, 3, "two\n\x1b[2Jthree\nfo"},
		"tail 4":    {logPrinter{}, 4, "one\ntwo\n\x1b[2Jthree\nfo"},
		"tail 99":   {logPrinter{}, 99, "one\ntwo\n\x1b[2Jthree\nfo"},
		"since":     {logPrinter{since: someTime.Add(3 * time.Second)}, -1, "\x1b[2Jthree\nfo"},
		"tail, 2 s": {logPrinter{since: someTime.Add(3 * time.Second)}, 9, "\x1b[2Jthree\nfo"},
		"future":    {logPrinter{since: someTime.Add(time.Hour)}, -1, ""},
	} {
		var b bytes.Buffer
		c.p.out = bufio.NewWriter(&b)
		keep := c.p.keep(c.tail)
		text := make([]byte, 20) // a reader's buffer, used again for each entry
		for _, e := range entries {
			e.Text = text[:copy(text, e.Text)]
			if err := keep(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.p.flush(); err != nil || b.String() != c.want {
			t.Errorf("%s: %q %v, expected %q", name, b.String(), err, c.want)
		}
	}
	p := logPrinter{out: bufio.NewWriter(fullWriter{})}
	_ = p.print(entries[0])
	if err := p.flush(); !errors.Is(err, errFull) {
		t.Errorf("a full stream: %v", err)
	}
}

// A sequence that is cut in two is no sequence.
func TestLogPrinterParts(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	p := logPrinter{out: bufio.NewWriter(&b), terminal: true}
	for _, parts := range [][]string{{"\xc2", "\x9b2J"}, {"\x1b", "[2J"}, {"\x1b[2", "J"}} {
		for i, s := range parts {
			if err := p.print(line(sandboxlog.Stdout, 0, s, i == len(parts)-1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.flush(); err != nil || !utf8.Valid(b.Bytes()) || strings.ContainsAny(b.String(), "\x1b\u009b") {
		t.Errorf("%q %v", b.String(), err)
	}
}
