// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestHost is a day of one machine: tests of other packages, the systemd unit,
// and all that the documentation says to type.
func TestHost(t *testing.T) {
	requireImage(t)
	t.Parallel()
	m := powerOn(t)
	t.Run("scripts", func(t *testing.T) { m.as(t, testScripts) })
	t.Run("unit", func(t *testing.T) { m.as(t, testUnit) })
	t.Run("docs", func(t *testing.T) { m.as(t, testDocs) })
}

// as runs a part of a test with the machine.
func (m *machine) as(t *testing.T, f func(*testing.T, *machine)) {
	part := *m
	part.t = t
	f(t, &part)
	m.number = part.number
}

// testScripts runs tests of other packages in the machine, compiled on this
// host: SCRIPTS says which of the scripts, all tests if it is empty.
func testScripts(t *testing.T, m *machine) {
	for _, p := range packages() {
		began := time.Now()
		out, err := m.try(fmt.Sprintf(`cd /src/%s && export HOME=/root SANDBOXCTL_BIN=/usr/local/bin SANDBOXCTL_E2E=require SANDBOXCTL_PATIENCE=10
./*.test -test.v -test.timeout 100m -test.parallel 1 -test.run '%s' >/tmp/out 2>&1; code=$?
grep -E '^ *--- |^(PASS|FAIL|panic)' /tmp/out
[ $code = 0 ] || { grep -vE '^ *(=== |--- PASS)' /tmp/out | tail -c 20000; exit $code; }`, p.dir, p.run), 100*time.Minute)
		if err != nil {
			t.Errorf("%s: %v", p.dir, err)
			continue
		}
		if !strings.Contains(out, "--- PASS") {
			t.Errorf("%s: no test was run: %s", p.dir, out)
		}
		t.Logf("%s in %s\n%s", p.dir, time.Since(began).Round(time.Second), out)
	}
}

// testPackage is a package whose tests run in the machine, and which of them.
type testPackage struct{ dir, run string }

func packages() []testPackage {
	if scripts := os.Getenv("SCRIPTS"); scripts != "" {
		return []testPackage{{"cmd/sandboxctl", "^TestScript$/^(" + strings.ReplaceAll(scripts, " ", "|") + ")$"}}
	}
	return []testPackage{
		{"cmd/sandboxctl", "^TestScript$"},
		{"actual", ""},
		{"launcher", ""},
		{"launcher/cgroup", ""},
		{"launcher/invariants", ""},
	}
}
