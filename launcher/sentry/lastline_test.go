// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"testing"
)

func TestLastWords(t *testing.T) {
	t.Parallel()
	for tail, want := range map[string]string{
		"":       "",
		"a\nb\n": "b",
		"2026-01-02T03:04:05.000000006Z stderr F FATAL ERROR: no such file\n2026-01-02T03:04:05.000000006Z stderr F W1123 18:00:00.000 1 x.go:1] watchdog\n": "FATAL ERROR: no such file",
		"W1123 18:00:00.000 1 x.go:1] only this\n": "",
		"a\x1b[2Jb\n": "a [2Jb",
	} {
		if got := LastLogLine(tail); got != want {
			t.Errorf("%q: got %q, expected %q", tail, got, want)
		}
	}
}
