// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// The same warning is written now and then, another one and what is no warning always.
func TestSeldom(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := seldom(slog.NewTextHandler(&out, nil))
	at := time.Unix(1e9, 0)
	say := func(h slog.Handler, level slog.Level, msg string, attrs ...slog.Attr) {
		r := slog.NewRecord(at, level, msg, 0)
		r.AddAttrs(attrs...)
		must(t, h.Handle(context.Background(), r))
	}
	lines := func(part string) int { return strings.Count(out.String(), part) }
	for i := range 1000 {
		say(log, slog.LevelWarn, "event not recorded", slog.String("err", "full"), slog.Int("pass", i), slog.Duration("took", time.Duration(i)))
		say(log, slog.LevelError, "pass failed", slog.Int("pass", i))
		say(log.WithAttrs([]slog.Attr{slog.String("sandbox", "a")}), slog.LevelWarn, "event not recorded", slog.String("err", "full"))
		say(log.WithGroup("g"), slog.LevelWarn, "in a group")
		say(log, slog.LevelInfo, "create")
	}
	for part, want := range map[string]int{
		"msg=\"event not recorded\" err=full": sameWarnings, "pass failed": sameWarnings, "sandbox=a": sameWarnings, "in a group": sameWarnings, "msg=create": 1000,
	} {
		if n := lines(part); n != want {
			t.Errorf("%s: %d lines, expected %d", part, n, want)
		}
	}
	say(log, slog.LevelWarn, "event not recorded", slog.String("err", "another"))
	if lines("err=another") != 1 {
		t.Error("another warning is dropped")
	}
	at = at.Add(sameWithin)
	say(log, slog.LevelWarn, "event not recorded", slog.String("err", "full"), slog.Int("pass", 1))
	if lines("pass=1 dropped=995") != 1 {
		t.Errorf("what was dropped is not told: %s", out.String()[out.Len()-200:])
	}
	// What is remembered is bounded.
	h := log.(*seldomHandler)
	for i := range 3 * maxSame {
		say(log, slog.LevelWarn, "one of many", slog.Int("i", i))
	}
	if n := len(h.seen.same); n > maxSame {
		t.Errorf("%d warnings are remembered", n)
	}
}
