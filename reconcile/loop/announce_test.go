// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
)

// messages keeps what events of one reason say.
type messages struct {
	reason string
	said   []string
}

func (m *messages) Append(e actual.Event) error {
	if e.Reason == m.reason {
		m.said = append(m.said, e.Message)
	}
	return nil
}

// A directory full of files for other programs makes a bounded number of events, each
// file once for as long as it is there.
func TestLoopTellsForeign(t *testing.T) {
	t.Parallel()
	files := func(from, to int) (out []desired.Warning) {
		for i := from; i < to; i++ {
			out = append(out, desired.Warning{Position: desired.Position{File: fmt.Sprintf("f%03d.yaml", i), Line: 1, Column: 1}, Message: "it is for another program"})
		}
		return out
	}
	const most = 20
	steps := []struct {
		what     string
		warnings []desired.Warning
		missing  bool
		files    int // events about one file
		rest     int // what the event about the others counts, 0 for none
	}{
		{what: "none"},
		{what: "one", warnings: files(0, 1), files: 1},
		{what: "the same one", warnings: files(0, 1)},
		{what: "the limit", warnings: files(0, 1+most), files: most},
		{what: "one beyond the limit", warnings: files(0, 1+most+most+1), files: most, rest: 1},
		{what: "those again", warnings: files(0, 1+most+most+1)},
		{what: "hundreds", warnings: files(0, 500), files: most, rest: 500 - (1 + most + most + 1) - most},
		{what: "one among hundreds", warnings: files(0, 501), files: 1},
		{what: "a directory that can't be read", missing: true},
		{what: "back again, with one more", warnings: files(0, 502), files: 1},
		{what: "all mended", warnings: nil},
		{what: "broken again", warnings: files(3, 5), files: 2},
		{what: "one of two mended, another one broken", warnings: files(4, 6), files: 1},
	}
	events := &messages{reason: actual.EventFileIgnored}
	inLoop(t, func(o *loop.Options) { o.Events = events }, func(w *reconciletest.World, l *loop.Loop, _ *atomic.Int64) {
		for _, s := range steps {
			events.said = nil
			w.SetComplete(!s.missing)
			w.Warn(s.warnings...)
			for range 2 {
				l.Wake()
				synctest.Wait()
			}
			got := slices.DeleteFunc(slices.Clone(events.said), func(m string) bool { return !strings.Contains(m, ".yaml:1:1: ") })
			rest := fmt.Sprintf("%d more files for other programs are ignored; see `sandboxctl validate`", s.rest)
			others := len(events.said) - len(got)
			if len(got) != s.files || others != min(s.rest, 1) || s.rest > 0 && !strings.HasSuffix(events.said[len(events.said)-1], rest) {
				t.Errorf("%s: %d events about files and %d about the rest, expected %d and %q\n%q", s.what, len(got), others, s.files, rest, events.said)
			}
		}
	})
}
