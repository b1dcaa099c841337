// SPDX-License-Identifier: Apache-2.0

package fromsnapshot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/desired/scalar"
)

func label(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func TestSnapshotFields(t *testing.T) {
	t.Parallel()
	run := func(exec ...string) *Snapshot { return &Snapshot{From: "a", OnRestore: &OnRestore{Exec: exec}} }
	within := func(d time.Duration) *Snapshot {
		s := run("x")
		s.OnRestore.Timeout = new(scalar.Duration(d))
		return s
	}
	for what, c := range map[string]struct {
		s    *Snapshot
		want string
	}{
		"none":           {nil, ""},
		"a name":         {&Snapshot{From: "python-1"}, ""},
		"no name":        {&Snapshot{}, "spec.snapshot.from: expected the name of a snapshot"},
		"a path":         {&Snapshot{From: "../x"}, `got "../x"`},
		"a command":      {run("x", ""), ""},
		"no command":     {run(), "spec.snapshot.onRestore.exec: expected a program"},
		"no program":     {run(""), "spec.snapshot.onRestore.exec: expected a program"},
		"zero byte":      {run("x", "a\x00b"), "spec.snapshot.onRestore.exec[1]: expected text without a zero byte"},
		"too many words": {run(make([]string, 2000)...), "expected at most 1000 words"},
		"no time":        {within(0), "spec.snapshot.onRestore.timeout: expected more than 0s"},
		"as long as may": {within(mostTimeout), ""},
		"too long":       {within(mostTimeout + 1), "at most 10m0s"},
	} {
		if what == "too many words" {
			c.s.OnRestore.Exec[0] = "x"
		}
		var got []string
		c.s.Fill()
		c.s.Check("spec.snapshot", label, func(field, format string, args ...any) {
			got = append(got, field+": "+fmt.Sprintf(format, args...))
		})
		if all := strings.Join(got, "; "); (all == "") != (c.want == "") || !strings.Contains(all, c.want) {
			t.Errorf("%s: %q, expected %q", what, all, c.want)
		}
	}
	s := run("x")
	if s.Fill(); time.Duration(*s.OnRestore.Timeout) != DefaultTimeout {
		t.Errorf("%v", *s.OnRestore.Timeout)
	}
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]string{
		"": "", "*": "python python-1 shop", "python": "python", "python-*": "python-1", "shop python*": "python python-1 shop",
	} {
		var got []string
		for _, name := range []string{"python", "python-1", "shop"} {
			if Allowed(strings.Fields(list), name) {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q allows %q, expected %q", list, got, want)
		}
	}
	for list, want := range map[string]bool{"*": true, "a-*": true, "a": true, "": false, "a*b": false, "A": false, "**": false} {
		wrong := 0
		CheckAllowed("names", []string{list}, label, func(string, string, ...any) { wrong++ })
		if (wrong == 0) != want {
			t.Errorf("%q: %d errors", list, wrong)
		}
	}
}
