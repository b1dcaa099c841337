// SPDX-License-Identifier: Apache-2.0

package hosttest

import (
	"fmt"
	"testing"
)

// told is a test that writes down how it was ended.
type told struct {
	testing.TB
	how string
}

func (t *told) Helper()                          {}
func (t *told) Skipf(format string, args ...any) { t.how = "skipped: " + fmt.Sprintf(format, args...) }

func (t *told) Fatalf(format string, args ...any) { t.how = "failed: " + fmt.Sprintf(format, args...) }

func TestLacks(t *testing.T) {
	for required, want := range map[string]string{
		"":        "skipped: no loop 7",
		"1":       "skipped: no loop 7",
		"require": "failed: no loop 7; SANDBOXCTL_E2E=require wants this tested",
	} {
		t.Setenv("SANDBOXCTL_E2E", required)
		got := &told{TB: t}
		if Lacks(got, "no loop %d", 7); got.how != want {
			t.Errorf("SANDBOXCTL_E2E=%s: %s, expected %s", required, got.how, want)
		}
	}
}
