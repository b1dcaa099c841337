// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/reconcile"
)

var someTime = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func TestAmounts(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		-1: "", 0: "0.0Ki", 1536: "1.5Ki", 1<<20 - 1: "1024.0Ki", 1 << 20: "1.0Mi", 3 << 19: "1.5Mi", 1 << 30: "1.00Gi", 5 << 28: "1.25Gi",
	} {
		if got := show.Bytes(n); got != want {
			t.Errorf("%d bytes are %q, expected %q", n, got, want)
		}
	}
	for got, want := range map[string]string{
		cpuText(-1): "", cpuText(0): "0.00s", cpuText(1_234_567_890): "1.23s", countText(-1): "", countText(7): "7",
		pidText(0): "", pidText(12): "12", processText(0): "not running", processText(12): "pid 12",
		checkText(nil) + checkText(&actual.Record{}) + checkText(&actual.Record{CNI: &actual.CNI{}}): "",
		checkText(&actual.Record{CNI: &actual.CNI{CheckFails: "no rules"}}):                          "none: its plugins found fault with it right after they had made it: no rules",
	} {
		if got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}

func TestGetRow(t *testing.T) {
	t.Parallel()
	s := reconcile.Status{
		Name: "web", Phase: reconcile.PhaseRunning, Generation: 3, ObservedGeneration: 2, RestartCount: 4, SentryPID: 10, GoferPID: 11,
		CreatedAt: someTime.Add(-time.Hour), StartedAt: someTime.Add(-time.Minute), SourceFile: "a\x1b.yaml", SourceLine: 7, Runtime: "r",
		LastTermination: &actual.Exit{Known: true, Code: 3, Reason: "Error"},
		Conditions:      []reconcile.Condition{{Type: reconcile.CondReady, Status: reconcile.False, Message: "a\nb"}},
	}
	if got := strings.Join(getRow(&world.World{In: reconcile.Input{Now: someTime}}, &s, false), "|"); got != "web|Running|False|4|60s|10|11|a b" {
		t.Error(got)
	}
	if got := strings.Join(getRow(&world.World{In: reconcile.Input{Now: someTime}}, &s, true), "|"); got != "web|Running|False|4|60s|10|11|2 of 3|a .yaml:7|Error (3)|r|a b" {
		t.Error(got)
	}
	// Its age is that of the sandbox when no run has one.
	s.Phase, s.LastTermination.Known, s.SourceLine, s.Generation = reconcile.PhasePending, false, 0, 2
	if got := strings.Join(getRow(&world.World{In: reconcile.Input{Now: someTime}}, &s, true), "|"); got != "web|Pending|False|4|60m|10|11|2|a .yaml|Error|r|a b" {
		t.Error(got)
	}
	for _, wide := range []bool{false, true} {
		if h, r := getHeader(wide), getRow(&world.World{In: reconcile.Input{Now: someTime}}, &s, wide); len(h) != len(r) {
			t.Errorf("wide %v: %d columns, %d heads", wide, len(r), len(h))
		}
	}
	if world.ExitText(nil) != "" || sourceText(&s) != "a\x1b.yaml" || timeText(time.Time{}, someTime) != "" {
		t.Error("what there is not is shown")
	}
}
