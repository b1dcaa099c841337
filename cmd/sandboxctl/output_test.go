// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/gofer/sandboxlog"
	"sandboxctl.dev/reconcile"
)

var someTime = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func TestAmounts(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		-1: "", 0: "0.0Ki", 1536: "1.5Ki", 1<<20 - 1: "1024.0Ki", 1 << 20: "1.0Mi", 3 << 19: "1.5Mi", 1 << 30: "1.00Gi", 5 << 28: "1.25Gi",
	} {
		if got := show.Bytes(n); got != want {
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
