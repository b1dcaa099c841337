// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	if len(packages()) > 0 {
		t.Run("scripts", func(t *testing.T) { m.as(t, testScripts) })
	}
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
// host: SCRIPTS says which of the scripts, or none; all tests if it is empty.
func testScripts(t *testing.T, m *machine) {
	for _, p := range packages() {
		runs := []string{p.run}
		if p.run == scripts {
			// One by one, so that what is known is told although one of them hangs.
			runs = scriptNames(t)
		}
		for _, run := range runs {
			began := time.Now()
			out, err := m.try(fmt.Sprintf(`cd /src/%s && export HOME=/root SANDBOXCTL_BIN=/usr/local/bin SANDBOXCTL_E2E=require SANDBOXCTL_PATIENCE=10
./*.test -test.v -test.timeout 60m -test.parallel 1 -test.run '%s' >/tmp/out 2>&1; code=$?
grep -E '^ *--- |^(PASS|FAIL|panic)' /tmp/out
[ $code = 0 ] || { grep -vE '^ *(=== |--- PASS)' /tmp/out | tail -c 20000; exit $code; }`, p.dir, run), 65*time.Minute)
			if err != nil {
				t.Errorf("%s %s: %v", p.dir, run, err)
				if errors.Is(err, errSilent) {
					t.FailNow() // it still runs
				}
				continue
			}
			if !strings.Contains(out, "--- PASS") {
				t.Errorf("%s %s: no test was run: %s", p.dir, run, out)
			}
			t.Logf("%s %s in %s\n%s", p.dir, run, time.Since(began).Round(time.Second), out)
		}
	}
}

// testPackage is a package whose tests run in the machine, and which of them.
type testPackage struct{ dir, run string }

// scripts is the test of all scripts.
const scripts = "^TestScript$"

// packages are those to run: all, or those that PACKAGES names, and scripts if SCRIPTS names some.
func packages() []testPackage {
	all, names := allPackages(), strings.Fields(os.Getenv("PACKAGES"))
	switch some := os.Getenv("SCRIPTS"); {
	case some == "none":
		return nil
	case some == "" && len(names) == 0:
		return all
	default:
		return slices.DeleteFunc(all, func(p testPackage) bool {
			return !slices.Contains(names, p.dir) && (p.run != scripts || some == "")
		})
	}
}

// allPackages are those with tests of what another kernel, systemd or cgroup v2 may do
// otherwise, and the scripts. TestClaimsRunHere holds that what the pages name is in them.
func allPackages() (out []testPackage) {
	for _, dir := range []string{
		"actual", "actual/process", "launcher/cgroup", "launcher/hooks", "launcher/hostfs", "launcher/invariants", "launcher/netns",
		"launcher/links", "launcher/flows", "launcher/firewall", "launcher/bridge", "launcher/packetlog", "launcher/cni",
		"launcher/pair", "launcher/proc", "launcher/salvage", "launcher",
	} {
		out = append(out, testPackage{dir, ""})
	}
	// Project quotas of ext4, which other kernels are built without.
	out = append(out, testPackage{"launcher/projquota", ""}, testPackage{"launcher/volume", "^TestSizeOnDisk$"})
	return append(out, testPackage{"cmd/sandboxctl", scripts})
}

// scriptNames are patterns of the scripts to run, in this order.
func scriptNames(t *testing.T) []string {
	names := strings.Fields(os.Getenv("SCRIPTS"))
	if len(names) == 0 {
		files, err := filepath.Glob("../testdata/script/*.txtar")
		must(t, err)
		for _, f := range files {
			names = append(names, strings.TrimSuffix(filepath.Base(f), ".txtar"))
		}
	}
	for i, n := range names {
		names[i] = scripts + "/^" + n + "$"
	}
	return names
}
