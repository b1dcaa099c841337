// SPDX-License-Identifier: Apache-2.0

package untrusted

import (
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	t.Parallel()
	if got := Line("a\x1b[2Jb\n\u009bc"+strings.Repeat("x", 50), 20); strings.ContainsAny(got, "\x1b\n\u009b") || len(got) > 24 {
		t.Errorf("%q", got)
	}
}
