// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/desired"
)

// The bounds of starts, hooks and restarts: what is left out is as built in, also
// where there is no policy, and what makes no sense is refused.
func TestPolicyPace(t *testing.T) {
	t.Parallel()
	head := "apiVersion: " + desired.APIVersion + "\nkind: " + desired.PolicyKind + "\n"
	built := Default()
	if built.Bounds().RestartFloor != time.Second || built.Bounds().StartsPerSecond != 20 || built.StartTime() != 10*time.Minute || built.HookTime() != 5*time.Minute {
		t.Errorf("built in: %s %d %s %s", built.Bounds().RestartFloor, built.Bounds().StartsPerSecond, built.StartTime(), built.HookTime())
	}
	var none *Policy
	if (&desired.Snapshot{}).Bounds().RestartFloor != 0 || (&desired.Snapshot{}).Bounds().StartsPerSecond != 0 || none.StartTime() != 10*time.Minute || none.HookTime() != 5*time.Minute {
		t.Errorf("none: %s %d %s %s", (&desired.Snapshot{}).Bounds().RestartFloor, (&desired.Snapshot{}).Bounds().StartsPerSecond, none.StartTime(), none.HookTime())
	}
	p, problems := Decode("p", []byte(head+"minRestartDelay: 0s\nmaxStartsPerSecond: 3\nmaxStartTime: 90s\nmaxHookTime: 1s\n"))
	if p == nil {
		t.Fatal(problems)
	}
	if p.Bounds().RestartFloor != 0 || p.Bounds().StartsPerSecond != 3 || p.StartTime() != 90*time.Second || p.HookTime() != time.Second {
		t.Errorf("of a file: %s %d %s %s", p.Bounds().RestartFloor, p.Bounds().StartsPerSecond, p.StartTime(), p.HookTime())
	}
	if p.Waiting() != 1 || built.Waiting() != 1 || none.Waiting() != 0 {
		t.Errorf("processes that wait: %d, built in %d, none %d", p.Waiting(), built.Waiting(), none.Waiting())
	}
	for text, want := range map[string]int{"warm: 0\n": 0, "warm: 64\n": 64} {
		if p, problems := Decode("p", []byte(head+text)); p == nil || p.Waiting() != want {
			t.Errorf("%s: %v", text, problems)
		}
	}
	if p.WarmSentries() != 0 || built.WarmSentries() != 0 || none.WarmSentries() != 0 {
		t.Errorf("warm sentries: %d, built in %d, none %d", p.WarmSentries(), built.WarmSentries(), none.WarmSentries())
	}
	if p, problems := Decode("p", []byte(head+"warmKernels: 3\n")); p == nil || p.WarmSentries() != 3 || p.Waiting() != 1 {
		t.Errorf("warm sentries: %v", problems)
	}
	for text, want := range map[string]string{
		"minRestartDelay: -1s":     "minRestartDelay: expected 0s or more",
		"minRestartDelay: 2h":      "minRestartDelay: expected at most 1h0m0s",
		"maxStartsPerSecond: -1":   "maxStartsPerSecond: expected 1 to 1000, got -1",
		"maxStartsPerSecond: 1001": "maxStartsPerSecond: expected 1 to 1000",
		"maxStartTime: 0s":         "maxStartTime: expected at least 1s",
		"maxStartTime: 25h":        "maxStartTime: expected at most 24h0m0s",
		"warm: -1":                 "warm: expected 0 (none) to 64, got -1",
		"warm: 65":                 "warm: expected 0 (none) to 64, got 65",
		"warm: many":               "warm",
		"warmKernels: -1":          "warmKernels: expected 0 (none) to 64, got -1",
		"warmKernels: 65":          "warmKernels: expected 0 (none) to 64, got 65",
		"maxHookTime: 10ms":        "maxHookTime: expected at least 1s",
		"maxHookTime: soon":        "maxHookTime",
	} {
		p, problems := Decode("p", []byte(head+text+"\n"))
		if p != nil || len(problems) != 1 || !strings.Contains(problems[0].Error(), want) {
			t.Errorf("%s: %v, expected %s", text, problems, want)
		}
	}
}
