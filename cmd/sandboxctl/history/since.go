// SPDX-License-Identifier: Apache-2.0

package history

import (
	"strconv"
	"strings"
	"time"

	"sandboxctl.dev/cmd/sandboxctl/exit"
)

// sinceTime reads --since: how long ago, or a time.
func sinceTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, ok := ago(s); ok {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, exit.Usagef("--since: expected how long ago, such as 5m or 1d, or a time, such as 2006-01-02, \"2006-01-02 15:04\" or 2006-01-02T15:04:05Z, got %q", s)
}

// ago reads a duration that may begin with weeks and days, which Go has none of.
func ago(s string) (time.Duration, bool) {
	var sum time.Duration
	for _, unit := range []struct {
		letter string
		length time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		number, rest, found := strings.Cut(s, unit.letter)
		if !found {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || n < 0 || n > 10000 {
			return 0, false
		}
		sum += time.Duration(n * float64(unit.length))
		if s = rest; s == "" {
			return sum, true
		}
	}
	d, err := time.ParseDuration(s)
	return sum + d, err == nil && d >= 0
}
