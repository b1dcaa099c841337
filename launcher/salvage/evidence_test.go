// SPDX-License-Identifier: Apache-2.0

package salvage

import (
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/cgroup"
)

// The words of a sentry, which may have been taken over, are read and not
// believed.
func TestEvidenceWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args    string
		uid     string
		attempt int64
	}{
		{"sandboxctl-sentry --exit-uid=ab --exit-attempt=7 boot", "ab", 7},
		{"sandboxctl-sentry", "", 0},
		{"sandboxctl-sentry --exit-uid=" + strings.Repeat("a", 65) + " --exit-attempt=99999999999999999999", "", 0},
		{"sandboxctl-sentry --exit-uid=\x1b[31m --exit-attempt=-1", " [31m", -1},
	} {
		if uid, attempt := startedAs(strings.Split(c.args, " ")); uid != c.uid || attempt != c.attempt {
			t.Errorf("%q: %q %d, expected %q %d", c.args, uid, attempt, c.uid, c.attempt)
		}
	}
	for p, want := range map[string]string{
		"/sandboxctl/web-0": "web-0", "/a/b/sandboxctl/web-0": "web-0", "/": "", "/sandboxctl": "", "/other/web-0": "", "/sandboxctl/web-0/deeper": "", "": "",
	} {
		if got := cgroup.NameOf(p); got != want {
			t.Errorf("%q: %q, expected %q", p, got, want)
		}
	}
	uid := strings.Repeat("0a", 16)
	copied := &actual.Record{Name: "web", UID: uid, SpecHash: "copy", Containers: []actual.Container{{Name: actual.AppName}}}
	e := &Evidence{Name: "web", Copy: copied, Processes: []Found{{Cgroup: "web-" + uid}}}
	if rec := e.Leaves(); rec == nil || rec.SpecHash != "copy" {
		t.Errorf("its own copy is not used: %+v", rec)
	}
	e.Processes[0].Cgroup = "web-" + strings.Repeat("1", 32)
	if rec := e.Leaves(); rec != nil {
		t.Errorf("the copy of another is used: %+v", rec)
	}
}
