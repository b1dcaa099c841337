// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/gofer/sandboxlog"
	"sandboxctl.dev/reconcile"
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
		if err := table(&b, c.header, c.rows); err != nil || b.String() != c.want {
			t.Errorf("%s: %q %v, expected %q", name, b.String(), err, c.want)
		}
	}
	if err := table(fullWriter{}, []string{"A"}, nil); !errors.Is(err, errFull) {
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
		if got := age(someTime.Add(-d), someTime); got != want {
			t.Errorf("%s ago is %q, expected %q", d, got, want)
		}
	}
	if got := age(time.Time{}, someTime); got != "" {
		t.Errorf("no time is %q", got)
	}
}

func TestAmounts(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		-1: "", 0: "0.0Ki", 1536: "1.5Ki", 1<<20 - 1: "1024.0Ki", 1 << 20: "1.0Mi", 3 << 19: "1.5Mi", 1 << 30: "1.00Gi", 5 << 28: "1.25Gi",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("%d bytes are %q, expected %q", n, got, want)
		}
	}
	for got, want := range map[string]string{
		cpuText(-1): "", cpuText(0): "0.00s", cpuText(1_234_567_890): "1.23s", countText(-1): "", countText(7): "7",
		pidText(0): "", pidText(12): "12", processText(0): "not running", processText(12): "pid 12",
	} {
		if got != want {
			t.Errorf("%q, expected %q", got, want)
		}
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
		if got := clean(in); got != want.clean {
			t.Errorf("clean %q is %q, expected %q", in, got, want.clean)
		}
		if got := cleanLine(in); got != want.line {
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
		if got := clean(s); !utf8.ValidString(got) || strings.IndexFunc(got, unicode.IsControl) >= 0 {
			rt.Fatalf("clean %q is %q", s, got)
		}
		got := cleanLine(s)
		if cleanLine(got) != got || !utf8.ValidString(got) {
			rt.Fatalf("cleanLine %q is not clean: %q", s, got)
		}
		for i, r := range got {
			if unicode.IsControl(r) && r != '\t' && (r != '\x1b' || colour(got[i:]) == 0) {
				rt.Fatalf("cleanLine %q is %q", s, got)
			}
		}
	})
}

func TestStreams(t *testing.T) {
	t.Parallel()
	if isTerminal(&bytes.Buffer{}) || isTerminal(nil) {
		t.Error("what is no file is a terminal")
	}
	type doc struct {
		A string `json:"a"`
	}
	var b bytes.Buffer
	if err := errors.Join(printJSON(&b, doc{"<x>"}), printYAML(&b, doc{"y"})); err != nil || b.String() != "{\n  \"a\": \"\\u003cx\\u003e\"\n}\na: \"y\"\n" {
		t.Errorf("%q %v", b.String(), err)
	}
	if err := printYAML(&b, func() {}); err == nil {
		t.Error("a function is encoded")
	}
	if err := printYAML(fullWriter{}, doc{}); !errors.Is(err, errFull) {
		t.Errorf("a full stream: %v", err)
	}
}

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

func TestHeadline(t *testing.T) {
	t.Parallel()
	cond := func(typ, status, message string) reconcile.Condition {
		return reconcile.Condition{Type: typ, Status: status, Message: message}
	}
	for want, conds := range map[string][]reconcile.Condition{
		"":        {cond(reconcile.CondReady, reconcile.True, "runs"), cond(reconcile.CondStalled, reconcile.False, "no")},
		"broken":  {cond(reconcile.CondReady, reconcile.False, "down"), cond(reconcile.CondManifestValid, reconcile.False, "broken")},
		"stuck":   {cond(reconcile.CondReconciling, reconcile.True, "at it"), cond(reconcile.CondStalled, reconcile.True, "stuck")},
		"at it":   {cond(reconcile.CondReady, reconcile.False, "down"), cond(reconcile.CondReconciling, reconcile.True, "at it")},
		"down":    {cond(reconcile.CondReady, reconcile.False, "down"), cond(reconcile.CondStalled, reconcile.True, "")},
		"no cpus": {cond(reconcile.CondReady, reconcile.True, ""), cond(reconcile.CondResourcesEnforced, reconcile.False, "no cpus")},
	} {
		if got := headline(&reconcile.Status{Conditions: conds}); got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
	// What waits for its next start says why.
	for want, x := range map[string]*actual.Exit{
		"next start": nil, "Error (1); next start": {Reason: "Error", Code: 1, Known: true}, "CreateFailed: no; next start": {Reason: "CreateFailed", Message: "no"},
	} {
		waits := reconcile.Condition{Type: reconcile.CondReconciling, Status: reconcile.True, Reason: actual.ReasonBackOff, Message: "next start"}
		if got := headline(&reconcile.Status{LastTermination: x, Conditions: []reconcile.Condition{waits}}); got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}

// A table that goes on stays aligned, and repeats nothing.
func TestColumns(t *testing.T) {
	t.Parallel()
	var c columns
	var b strings.Builder
	for _, look := range [][][]string{{{"NAME", "PHASE", "MESSAGE"}, {"longer", "Running", ""}}, {}, {{"a", "", "why"}, {"b", "removed"}}} {
		for _, r := range look {
			c.add(r)
		}
		if err := c.print(&b); err != nil {
			t.Fatal(err)
		}
	}
	want := "NAME     PHASE     MESSAGE\nlonger   Running   -\na        -         why\nb        removed\n"
	if b.String() != want {
		t.Errorf("%q, expected %q", b.String(), want)
	}
}

func TestGetRow(t *testing.T) {
	t.Parallel()
	s := reconcile.Status{
		Name: "web", Phase: reconcile.PhaseRunning, Generation: 3, ObservedGeneration: 2, RestartCount: 4, SentryPID: 10, GoferPID: 11,
		CreatedAt: someTime.Add(-time.Hour), StartedAt: someTime.Add(-time.Minute), SourceFile: "a\x1b.yaml", SourceLine: 7, Runtime: "r",
		LastTermination: &actual.Exit{Known: true, Code: 3, Reason: "Error"},
		Conditions:      []reconcile.Condition{{Type: reconcile.CondReady, Status: reconcile.False, Message: "a\nb"}},
	}
	if got := strings.Join((&world{in: reconcile.Input{Now: someTime}}).getRow(&s, false), "|"); got != "web|Running|False|4|60s|10|11|a b" {
		t.Error(got)
	}
	if got := strings.Join((&world{in: reconcile.Input{Now: someTime}}).getRow(&s, true), "|"); got != "web|Running|False|4|60s|10|11|2 of 3|a .yaml:7|Error (3)|r|a b" {
		t.Error(got)
	}
	// Its age is that of the sandbox when no run has one.
	s.Phase, s.LastTermination.Known, s.SourceLine, s.Generation = reconcile.PhasePending, false, 0, 2
	if got := strings.Join((&world{in: reconcile.Input{Now: someTime}}).getRow(&s, true), "|"); got != "web|Pending|False|4|60m|10|11|2|a .yaml|Error|r|a b" {
		t.Error(got)
	}
	for _, wide := range []bool{false, true} {
		if h, r := getHeader(wide), (&world{in: reconcile.Input{Now: someTime}}).getRow(&s, wide); len(h) != len(r) {
			t.Errorf("wide %v: %d columns, %d heads", wide, len(r), len(h))
		}
	}
	if exitText(nil) != "" || sourceText(&s) != "a\x1b.yaml" || timeText(time.Time{}, someTime) != "" {
		t.Error("what there is not is shown")
	}
}
