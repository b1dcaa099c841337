// SPDX-License-Identifier: Apache-2.0

package show

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"sandboxctl.dev/actual/untrusted"
)

var someTime = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// fullWriter is a stream nothing can be written to.
type fullWriter struct{}

var errFull = errors.New("full")

func (fullWriter) Write([]byte) (int, error) { return 0, errFull }

func TestTable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header []string
		rows   [][]string
		want   string
	}{
		"nothing":   {nil, nil, ""},
		"header":    {[]string{"A", "B"}, nil, "A   B\n"},
		"no header": {nil, [][]string{{"a", "b"}}, "a   b\n"},
		"empty":     {[]string{"A", "B", "C"}, [][]string{{"", "b", ""}}, "A   B   C\n-   b   -\n"},
		"aligned":   {[]string{"NAME", "X"}, [][]string{{"a", "1"}, {"longer", "2"}}, "NAME     X\na        1\nlonger   2\n"},
		"wide":      {nil, [][]string{{"é", "1"}, {"ab", "2"}}, "é    1\nab   2\n"},
	} {
		var b bytes.Buffer
		if err := Table(&b, c.header, c.rows); err != nil || b.String() != c.want {
			t.Errorf("%s: %q %v, expected %q", name, b.String(), err, c.want)
		}
	}
	if err := Table(fullWriter{}, []string{"A"}, nil); !errors.Is(err, errFull) {
		t.Errorf("a full stream: %v", err)
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 999 * time.Millisecond: "0s", 119*time.Second + 999*time.Millisecond: "119s",
		2 * time.Minute: "2m", 119*time.Minute + 59*time.Second: "119m", 2 * time.Hour: "2h", 48*time.Hour - 1: "47h",
		48 * time.Hour: "2d", 1000 * 24 * time.Hour: "1000d",
	} {
		if got := Age(someTime.Add(-d), someTime); got != want {
			t.Errorf("%s ago is %q, expected %q", d, got, want)
		}
	}
	if got := Age(time.Time{}, someTime); got != "" {
		t.Errorf("no time is %q", got)
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct{ clean, line string }{
		"plain é€𝄞":                {"plain é€𝄞", "plain é€𝄞"},
		"a\tb":                     {"a b", "a\tb"},
		"a\nb\rc\x00d":             {"a b c d", "a b c d"},
		"\x1b[31mred\x1b[0m":       {" [31mred [0m", "\x1b[31mred\x1b[0m"},
		"\x1b[1;38;5;200m":         {" [1;38;5;200m", "\x1b[1;38;5;200m"},
		"\x1b[m":                   {" [m", "\x1b[m"},
		"\x1b[2J\x1b[H":            {" [2J [H", " [2J [H"},
		"\x1b]0;title\x07":         {" ]0;title ", " ]0;title "},
		"\x1b[31":                  {" [31", " [31"},
		"\x1b[?25lx\x1b[3\x1bm":    {" [?25lx [3 m", " [?25lx [3 m"},
		"\u009b2J\u0085x\x7f":      {" 2J x ", " 2J x "},
		"caf\xe9 \xc2\x1b \x9b":    {"caf\ufffd \ufffd  \ufffd", "caf\ufffd \ufffd  \ufffd"},
		"\x1b[" + digits(40) + "m": {" [" + digits(40) + "m", " [" + digits(40) + "m"},
	} {
		if got := Clean(in); got != want.clean {
			t.Errorf("clean %q is %q, expected %q", in, got, want.clean)
		}
		if got := CleanLine(in); got != want.line {
			t.Errorf("cleanLine %q is %q, expected %q", in, got, want.line)
		}
	}
}

func digits(n int) string { return strings.Repeat("1", n) }

// Whatever a sandbox writes, a terminal gets text and colours.
func TestCleanAnything(t *testing.T) {
	t.Parallel()
	piece := rapid.SampledFrom([]string{"\x1b", "[", "31", ";", "m", "2J", "\u009b", "\x9b", "\xc2", "\t", "\x00", "é", "text", "\x1b[0m", "\xff"})
	rapid.Check(t, func(rt *rapid.T) {
		s := strings.Join(rapid.SliceOf(piece).Draw(rt, "pieces"), "") + rapid.String().Draw(rt, "any")
		if got := Clean(s); !utf8.ValidString(got) || strings.IndexFunc(got, unicode.IsControl) >= 0 {
			rt.Fatalf("clean %q is %q", s, got)
		}
		got := CleanLine(s)
		if CleanLine(got) != got || !utf8.ValidString(got) {
			rt.Fatalf("cleanLine %q is not clean: %q", s, got)
		}
		for i, r := range got {
			if unicode.IsControl(r) && r != '\t' && (r != '\x1b' || Colour(got[i:]) == 0) {
				rt.Fatalf("cleanLine %q is %q", s, got)
			}
		}
	})
}

func TestStreams(t *testing.T) {
	t.Parallel()
	if IsTerminal(&bytes.Buffer{}) || IsTerminal(nil) {
		t.Error("what is no file is a terminal")
	}
	type doc struct {
		A string `json:"a"`
	}
	var b bytes.Buffer
	if err := errors.Join(JSON(&b, doc{"<x>"}), YAML(&b, doc{"y"})); err != nil || b.String() != "{\n  \"a\": \"\\u003cx\\u003e\"\n}\na: \"y\"\n" {
		t.Errorf("%q %v", b.String(), err)
	}
	if err := YAML(&b, func() {}); err == nil {
		t.Error("a function is encoded")
	}
	if err := YAML(fullWriter{}, doc{}); !errors.Is(err, errFull) {
		t.Errorf("a full stream: %v", err)
	}
}

// A table that goes on stays aligned, and repeats nothing.
func TestColumns(t *testing.T) {
	t.Parallel()
	var c Columns
	var b strings.Builder
	for _, look := range [][][]string{{{"NAME", "PHASE", "MESSAGE"}, {"longer", "Running", ""}}, {}, {{"a", "", "why"}, {"b", "removed"}}} {
		for _, r := range look {
			c.Add(r)
		}
		if err := c.Print(&b); err != nil {
			t.Fatal(err)
		}
	}
	want := "NAME     PHASE     MESSAGE\nlonger   Running   -\na        -         why\nb        removed\n"
	if b.String() != want {
		t.Errorf("%q, expected %q", b.String(), want)
	}
}

// Whatever a status says: a table has its lines and no more, and JSON is what was
// said, in characters that a terminal does not obey.
func FuzzOutput(f *testing.F) {
	for _, s := range []string{"", "a", "a\nb\tc", "\x1b[2J", "\u009b2J\u0085", "\u202egpj.exe", "\u2028\u2029", "\xff\xc2", "\\u001b", "<&>", "\x00\x7f", "\U000e0001"} {
		f.Add(s, s+"x")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		var out bytes.Buffer
		if err := Table(&out, []string{"A", "B"}, [][]string{{Clean(a), Clean(b)}}); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Split(out.String(), "\n"); len(lines) != 3 || strings.IndexFunc(strings.Join(lines, ""), untrusted.Obeyed) >= 0 {
			t.Fatalf("%q", out.String())
		}
		if s := CleanLines(a + "\n" + b); strings.IndexFunc(strings.ReplaceAll(s, "\n", ""), untrusted.Obeyed) >= 0 {
			t.Fatalf("%q", s)
		}
		a, b = strings.ToValidUTF8(a, "?"), strings.ToValidUTF8(b, "?")
		said := map[string]any{a: []any{b, a}}
		for _, encode := range []func() error{func() error { return JSON(&out, said) }, func() error { return JSONLine(&out, said) }} {
			out.Reset()
			if err := encode(); err != nil {
				t.Fatal(err)
			}
			if i := strings.IndexFunc(strings.ReplaceAll(out.String(), "\n", ""), untrusted.Obeyed); i >= 0 {
				t.Fatalf("%q", out.String())
			}
			var back map[string]any
			if err := json.Unmarshal(out.Bytes(), &back); err != nil || !reflect.DeepEqual(back, said) {
				t.Fatalf("%q is %v: %v", said, back, err)
			}
		}
	})
}
