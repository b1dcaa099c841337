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

// A start takes the best way that nothing speaks against, and says what speaks against better ones.
func TestChoose(t *testing.T) {
	t.Parallel()
	plain := func() *setup.Setup {
		return &setup.Setup{Containers: []setup.Container{{Spec: &specs.Spec{Process: &specs.Process{}}}}}
	}
	direct := plain()
	direct.DirectFS = true
	rlimits := plain()
	rlimits.App().Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE"}}
	for what, c := range map[string]struct {
		facts    Facts
		way, why string
	}{
		"warm":                           {Facts{Setup: plain(), WantedWarm: 1, Warm: 1}, actual.WayWarm, ""},
		"both":                           {Facts{Setup: plain(), Wanted: 1, Waiting: 1, WantedWarm: 1, Warm: 1}, actual.WayWarm, ""},
		"no warm one":                    {Facts{Setup: plain(), Wanted: 1, Waiting: 1, WantedWarm: 1}, actual.WayWaiting, "at that moment"},
		"neither":                        {Facts{Setup: plain(), Wanted: 1, WantedWarm: 1}, actual.WayCold, "at that moment"},
		"not wanted any more":            {Facts{Setup: plain(), Waiting: 1, Warm: 1}, actual.WayCold, "host policy"},
		"warm is not wanted any more":    {Facts{Setup: plain(), Wanted: 1, Waiting: 1, Warm: 1}, actual.WayWaiting, ""},
		"unfit for warm":                 {Facts{Setup: rlimits, Wanted: 1, Waiting: 1, WantedWarm: 1, Warm: 1}, actual.WayWaiting, "it has rlimits"},
		"unfit for warm, and none waits": {Facts{Setup: rlimits, Wanted: 1, WantedWarm: 1, Warm: 1}, actual.WayCold, "it has rlimits, which no warm sentry takes, and no processes were waiting"},
		"unfit for warm, and no others":  {Facts{Setup: rlimits, WantedWarm: 1, Warm: 1}, actual.WayCold, "it has rlimits"},
		"unfit for both":                 {Facts{Setup: direct, Wanted: 1, Waiting: 1, WantedWarm: 1, Warm: 1}, actual.WayCold, "spec.fileAccess is direct"},
		"warm is fit, and only unfit":    {Facts{Setup: rlimits, Wanted: 1, Waiting: 1}, actual.WayWaiting, ""},
		"waits":                          {Facts{Setup: plain(), Wanted: 2, Waiting: 1}, actual.WayWaiting, ""},
		"off":                            {Facts{Setup: plain()}, actual.WayCold, "host policy"},
		"off, and unfit":                 {Facts{Setup: direct}, actual.WayCold, "host policy"},
		"unfit":                          {Facts{Setup: direct, Wanted: 2, Waiting: 2}, actual.WayCold, "fileAccess"},
		"unfit and none":                 {Facts{Setup: direct, Wanted: 2, Lack: "memory"}, actual.WayCold, "fileAccess"},
		"none":                           {Facts{Setup: plain(), Wanted: 2}, actual.WayCold, "at that moment"},
		"none, known":                    {Facts{Setup: plain(), Wanted: 2, Lack: "memory is short"}, actual.WayCold, "memory is short"},
		"lack of more":                   {Facts{Setup: plain(), Wanted: 2, Waiting: 1, Lack: "memory is short"}, actual.WayWaiting, ""},
	} {
		got := Choose(&c.facts)
		if got.Way != c.way {
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
		"taken by else": {Claim{choice: Choice{actual.WayCold, "another start"}}, false, actual.WayCold, "another start"},
		"not warm":      {Claim{choice: Choice{actual.WayWaiting, "it has rlimits"}, Waiting: &pair.Waiting{}}, true, actual.WayWaiting, "rlimits"},
		"warm one dead": {Claim{choice: Choice{Way: actual.WayWarm}, Waiting: &pair.Waiting{Refused: errors.New("no answer")}}, false, actual.WayCold, "the log of the daemon"},
		"dead":          {Claim{choice: chosen, Waiting: &pair.Waiting{Refused: errors.New("no answer")}}, false, actual.WayCold, "the log of the daemon"},
		"too long":      {Claim{choice: chosen, Waiting: &pair.Waiting{Misfit: "it needs 50 descriptors"}}, false, actual.WayCold, "50 descriptors"},
	} {
		if way, why := c.claim.Took(&pair.Pair{Waited: c.waited}); way != c.way || (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s: %s %q", what, way, why)
		}
	}
}
