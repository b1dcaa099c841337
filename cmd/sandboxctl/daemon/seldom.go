// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Of the same warning, so many lines are written in a time: what fails at every pass
// must not fill the disk, and a log that wakes its writer must not keep it awake.
const (
	sameWarnings = 5
	sameWithin   = time.Minute
	// maxSame bounds the warnings that are remembered.
	maxSame = 1000
)

// seldomHandler passes on what it is given, but the same warning only now and then.
type seldomHandler struct {
	next  slog.Handler
	about string // attributes that all lines of this handler have
	seen  *seenWarnings
}

type seenWarnings struct {
	mu   sync.Mutex
	same map[string]*sameWarning
}

// sameWarning is one that came since a time: so often, and how many were dropped.
type sameWarning struct {
	since   time.Time
	written int
	dropped int
}

func seldom(next slog.Handler) slog.Handler {
	return &seldomHandler{next: next, seen: &seenWarnings{same: map[string]*sameWarning{}}}
}

// Enabled implements slog.Handler.
func (h *seldomHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *seldomHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var about strings.Builder
	about.WriteString(h.about)
	for _, a := range attrs {
		about.WriteString("\x00" + a.String())
	}
	return &seldomHandler{next: h.next.WithAttrs(attrs), about: about.String(), seen: h.seen}
}

// WithGroup implements slog.Handler.
func (h *seldomHandler) WithGroup(name string) slog.Handler {
	return &seldomHandler{next: h.next.WithGroup(name), about: h.about + "\x00" + name, seen: h.seen}
}

// Handle implements slog.Handler.
func (h *seldomHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		dropped, write := h.seen.count(h.key(&r), r.Time)
		if !write {
			return nil
		}
		if dropped > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("dropped", dropped))
		}
	}
	return h.next.Handle(ctx, r)
}

// key is what makes two warnings the same: all that they say but for which pass it was
// and how long it took.
func (h *seldomHandler) key(r *slog.Record) string {
	var b strings.Builder
	b.WriteString(r.Level.String() + "\x00" + r.Message + h.about)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "pass" && a.Key != "took" {
			b.WriteString("\x00" + a.String())
		}
		return true
	})
	return b.String()
}

// count takes note of a warning. It says whether to write it, and how many of the same
// were dropped since the last one.
func (s *seenWarnings) count(key string, now time.Time) (dropped int, write bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.same[key]
	if w == nil || now.Sub(w.since).Abs() >= sameWithin {
		if w != nil {
			dropped = w.dropped
		}
		s.forget(now)
		w = &sameWarning{since: now}
		s.same[key] = w
	}
	if w.written == sameWarnings {
		w.dropped++
		return 0, false
	}
	w.written++
	return dropped, true
}

// forget drops what is long ago, and everything if there is too much.
func (s *seenWarnings) forget(now time.Time) {
	if len(s.same) < maxSame {
		return
	}
	for key, w := range s.same {
		if now.Sub(w.since).Abs() >= sameWithin {
			delete(s.same, key)
		}
	}
	if len(s.same) >= maxSame {
		clear(s.same)
	}
}
