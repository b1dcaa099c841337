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
		"each lacks for another reason":  {Facts{Setup: plain(), Wanted: 1, WantedWarm: 1, Lack: "pairs failed", LackWarm: "kernels failed"}, actual.WayCold, "kernels failed, and pairs failed"},
		"only kernels are lacking":       {Facts{Setup: plain(), Wanted: 1, Waiting: 1, WantedWarm: 1, LackWarm: "kernels failed"}, actual.WayWaiting, "kernels failed"},
		"others than kernels":            {Facts{Setup: rlimits, Wanted: 1, WantedWarm: 1, LackWarm: "kernels failed"}, actual.WayCold, "takes, and no processes were waiting"},
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

// A kernel that no sandbox could take is not booted: where all have limits that warm sentries have not.
func TestWantedKernels(t *testing.T) {
	t.Parallel()
	const most = "maxResources: {memory: 8Gi}\n"
	for text, want := range map[string]count{
		"defaultResources: {memory: 1Gi}":                   {1, 2},
		"defaultResources: {memory: 1023Mi}":                {1, 0},
		"defaultResources: {memory: 2Gi, cpu: 500m}":        {1, 0},
		"defaultResources: {memory: 2Gi, pids: 99}":         {1, 2},
		"defaultResources: {memory: 1023Mi}\nwarm: 0":       {0, 0},
		"defaultResources: {memory: 2Gi, pids: 99, cpu: 1}": {1, 0},
	} {
		policy := policyOf(t, most+"warmKernels: 2\n"+text)
		p := &Pool{}
		if got := p.wantedBy(policy); got != want {
			t.Errorf("%s: %+v, expected %+v", text, got, want)
		}
		if why := NoKernels(policy); (why == "") != (want.warm > 0) {
			t.Errorf("%s: %q", text, why)
		}
		// A start says that it is limited, and not that the policy asked for none.
		st := &setup.Setup{Containers: []setup.Container{{Spec: &specs.Spec{Process: &specs.Process{}}}}, Defaults: defaults(policy)}
		if c := Choose(p.facts(nil, "", policy, st)); want.warm == 0 && !strings.Contains(c.Why, "limit") {
			t.Errorf("%s: %+v", text, c)
		}
	}
	if why := NoKernels(policyOf(t, "defaultResources: {cpu: 1}")); why != "" {
		t.Errorf("none is asked for: %s", why)
	}
}

// What is said to be lacking is so of the kind that a start wanted.
func TestLacks(t *testing.T) {
	t.Parallel()
	failed := tries{failures: 1}
	for what, c := range map[string]struct {
		want, room  count
		tries       [2]tries
		pairs, warm string
	}{
		"nothing":                      {count{1, 1}, count{1, 1}, [2]tries{}, "", ""},
		"no room":                      {count{1, 1}, count{}, [2]tries{}, "memory", "memory"},
		"room for one":                 {count{1, 1}, count{1, 0}, [2]tries{}, "", "memory"},
		"kernels fail":                 {count{1, 1}, count{1, 1}, [2]tries{{}, failed}, "", "no kernel"},
		"pairs fail":                   {count{1, 1}, count{1, 1}, [2]tries{failed, {}}, "none could", ""},
		"failed, and not wanted now":   {count{0, 1}, count{0, 1}, [2]tries{failed, {}}, "", ""},
		"failed, and there is no room": {count{1, 0}, count{}, [2]tries{failed, {}}, "memory", ""},
	} {
		p := &Pool{tries: c.tries}
		p.lacks(c.want, c.room, "memory")
		f := p.kept(nil)
		for _, is := range [][2]string{{f.Lack, c.pairs}, {f.LackWarm, c.warm}} {
			if (is[0] == "") != (is[1] == "") || !strings.HasPrefix(is[0], is[1]) {
				t.Errorf("%s: %q, expected %q", what, is[0], is[1])
			}
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
