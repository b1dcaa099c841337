// SPDX-License-Identifier: Apache-2.0

// Package hosttest is for tests that not every host can run. They are skipped there, but
// fail where SANDBOXCTL_E2E=require says that every test must run: what is skipped
// without a word is not tested.
package hosttest

import (
	"os"
	"testing"
)

// Lacks ends a test for which the host lacks something.
func Lacks(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("SANDBOXCTL_E2E") == "require" {
		t.Fatalf(format+"; SANDBOXCTL_E2E=require wants this tested", args...)
		return
	}
	t.Skipf(format, args...)
}

// NeedsRoot ends a test that only root can run; why is the message.
func NeedsRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Lacks(t, "%s", why)
	}
}
