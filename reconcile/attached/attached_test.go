// SPDX-License-Identifier: Apache-2.0

package attached

import (
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
)

// What was found counts for the run that it was found of, and while that runs.
func TestWarn(t *testing.T) {
	t.Parallel()
	found := map[string]Lack{"web": {UID: "u", Attempt: 2, Gone: []string{"front"}, Refused: []string{"port 80: taken", "port 81: taken"}, Unlimited: "no tbf"}, "plugged": {UID: "u", Attempt: 1, Check: "no eth0"}}
	had := []actual.Warning{{Reason: actual.WarningHookFailed}}
	for _, c := range []struct {
		rec  actual.Record
		want int
	}{
		{actual.Record{Name: "web", UID: "u", Attempt: 2, Phase: actual.PhaseRunning}, 4},
		{actual.Record{Name: "web", UID: "u", Attempt: 2, Phase: actual.PhaseStopping}, 1},
		{actual.Record{Name: "web", UID: "u", Attempt: 3, Phase: actual.PhaseRunning}, 1},
		{actual.Record{Name: "web", UID: "v", Attempt: 2, Phase: actual.PhaseRunning}, 1},
		{actual.Record{Name: "db", UID: "u", Attempt: 2, Phase: actual.PhaseRunning}, 1},
	} {
		got := Warn(had, &desired.Snapshot{}, found, &c.rec)
		if len(got) != c.want || Gone(found, &c.rec) != (c.want == 4) {
			t.Errorf("%+v: %+v", c.rec, got)
		}
		if c.want == 4 && (got[3].Reason != actual.WarningBandwidthNotLimited || got[3].Message != "no tbf" || got[1].Reason != actual.WarningNetworkGone || got[2].Reason != actual.WarningPortNotPublished || got[2].Message != "port 80: taken; port 81: taken") {
			t.Errorf("%+v", got)
		}
	}
	rec := actual.Record{Name: "plugged", UID: "u", Attempt: 1, Phase: actual.PhaseRunning}
	if got := Warn(nil, &desired.Snapshot{}, found, &rec); len(got) != 1 || got[0].Reason != actual.WarningNetworkCheckFailed || !strings.HasPrefix(got[0].Message, "no eth0; ") || Gone(found, &rec) {
		t.Errorf("%+v", got)
	}
}
