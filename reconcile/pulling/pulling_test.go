// SPDX-License-Identifier: Apache-2.0

package pulling

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
)

var (
	now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	web = Need{Name: "web", Hash: "a"}
)

// A pull that fails again and again is tried ever later, but at least every five minutes.
func TestRetryDelays(t *testing.T) {
	t.Parallel()
	var r Retry
	for i, want := range []int{5, 10, 20, 40, 80, 160, 300, 300, 300} {
		r.Failed([]Need{web}, errors.New("x"), now)
		if got := r.Due.Sub(now); got != time.Duration(want)*time.Second || r.Failures != i+1 {
			t.Errorf("after %d failures: %v, expected %d s", r.Failures, got, want)
		}
	}
	for range 1000 { // a delay that is doubled too often would be none
		r.Failed([]Need{web}, errors.New("x"), now)
	}
	if got := r.Due.Sub(now); got != 5*time.Minute {
		t.Errorf("after %d failures: %v", r.Failures, got)
	}
}

// Only the very start that a pull has failed for waits: not one of another manifest or
// because of another request, nor when the delay is over or the clock was changed.
func TestRetryDelaysWhom(t *testing.T) {
	t.Parallel()
	var r Retry
	r.Failed([]Need{web, {Name: "db", Hash: "d", Restart: "1"}}, errors.New("x"), now)
	for name, c := range map[string]struct {
		need  Need
		at    time.Time
		waits bool
	}{
		"the same":              {web, now, true},
		"the other":             {Need{Name: "db", Hash: "d", Restart: "1"}, now, true},
		"almost over":           {web, now.Add(5*time.Second - 1), true},
		"over":                  {web, now.Add(5 * time.Second), false},
		"a new manifest":        {Need{Name: "web", Hash: "b"}, now, false},
		"a restart":             {Need{Name: "web", Hash: "a", Restart: "1"}, now, false},
		"another restart":       {Need{Name: "db", Hash: "d", Restart: "2"}, now, false},
		"a new sandbox":         {Need{Name: "other", Hash: "a"}, now, false},
		"the clock was set":     {web, now.Add(-24 * time.Hour), false},
		"the clock was set off": {web, now.Add(-time.Minute), true},
	} {
		if got := r.Delays(c.need, c.at); got.IsZero() == c.waits || c.waits && !got.Equal(r.Due) {
			t.Errorf("%s: %v", name, got)
		}
	}
	// What a sandbox needed before does not wait: it has come back to it.
	changed := Need{Name: "web", Hash: "b"}
	r.Failed([]Need{changed}, errors.New("x"), now)
	if !r.Delays(web, now).IsZero() || r.Delays(changed, now).IsZero() || len(r.Needs) != 2 {
		t.Errorf("%+v", r.Needs)
	}
}

func TestRetryReason(t *testing.T) {
	t.Parallel()
	var r Retry
	r.Failed(nil, fmt.Errorf("pull: %w", operation.ErrImageNotFound), now)
	if r.Reason != actual.ReasonImageNotFound {
		t.Error(r.Reason)
	}
	// It is there, and can't be fetched.
	for _, text := range []string{strings.Repeat("ä", 10_000), "x" + strings.Repeat("ä", 10_000), strings.Repeat("\xff", 1000), ""} {
		r.Failed(nil, errors.New(text), now)
		if r.Reason != actual.ReasonPullFailed || len(r.Message) > maxMessage || !utf8.ValidString(r.Message) {
			t.Errorf("%s: %d bytes", r.Reason, len(r.Message))
		}
	}
}
