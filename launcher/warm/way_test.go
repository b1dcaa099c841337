// SPDX-License-Identifier: Apache-2.0

package warm

import (
	"errors"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/setup"
)

// A start is cold for the first thing that speaks against it, and for nothing else.
func TestChoose(t *testing.T) {
	t.Parallel()
	plain := func() *setup.Setup {
		return &setup.Setup{Containers: []setup.Container{{Spec: &specs.Spec{Process: &specs.Process{}}}}}
	}
	direct := plain()
	direct.DirectFS = true
	for what, c := range map[string]struct {
		facts Facts
		why   string // "" is a start that takes what waits
	}{
		"waits":          {Facts{Setup: plain(), Wanted: 2, Waiting: 1}, ""},
		"off":            {Facts{Setup: plain()}, "host policy"},
		"off, and unfit": {Facts{Setup: direct}, "host policy"},
		"unfit":          {Facts{Setup: direct, Wanted: 2, Waiting: 2}, "fileAccess"},
		"unfit and none": {Facts{Setup: direct, Wanted: 2, Lack: "memory"}, "fileAccess"},
		"none":           {Facts{Setup: plain(), Wanted: 2}, "at that moment"},
		"none, known":    {Facts{Setup: plain(), Wanted: 2, Lack: "memory is short"}, "memory is short"},
		"lack of more":   {Facts{Setup: plain(), Wanted: 2, Waiting: 1, Lack: "memory is short"}, ""},
	} {
		got := Choose(&c.facts)
		if way := got.Way; (way == actual.WayWaiting) != (c.why == "") || way != actual.WayWaiting && way != actual.WayCold {
			t.Errorf("%s: %+v", what, got)
		}
		if (got.Why == "") != (c.why == "") || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: %q, expected %q", what, got.Why, c.why)
		}
	}
}

// The record has what a start came to, also where that is not what was chosen.
func TestTook(t *testing.T) {
	t.Parallel()
	chosen := Choice{Way: actual.WayWaiting}
	for what, c := range map[string]struct {
		claim  Claim
		waited bool
		way    string
		why    string
	}{
		"taken":         {Claim{choice: chosen, Waiting: &pair.Waiting{}}, true, actual.WayWaiting, ""},
		"cold":          {Claim{choice: Choice{actual.WayCold, "its application has a terminal"}}, false, actual.WayCold, "terminal"},
		"taken by else": {Claim{choice: chosen}, false, actual.WayCold, "another start"},
		"dead":          {Claim{choice: chosen, Waiting: &pair.Waiting{Refused: errors.New("no answer")}}, false, actual.WayCold, "the log of the daemon"},
		"too long":      {Claim{choice: chosen, Waiting: &pair.Waiting{Misfit: "it needs 50 descriptors"}}, false, actual.WayCold, "50 descriptors"},
	} {
		if way, why := c.claim.Took(&pair.Pair{Waited: c.waited}); way != c.way || (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s: %s %q", what, way, why)
		}
	}
}
