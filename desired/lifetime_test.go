// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"strings"
	"testing"
	"time"
)

// What is said of lifetimes is checked, with its place.
func TestLifetimeFields(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"activeDeadline: 30s":              "",
		"activeDeadline: 0s":               "spec.activeDeadline: expected at least 1s, got 0s; leave it out for no limit",
		"activeDeadline: -5s":              "spec.activeDeadline: expected at least 1s, got -5s",
		"activeDeadline: 90000h":           "spec.activeDeadline: expected at most 87600h0m0s (10 years), got 90000h0m0s",
		"activeDeadline: 30":               `spec.activeDeadline: expected a duration such as "10s", got 30`,
		"ttlAfterFinished: 0s":             "",
		"ttlAfterFinished: -1s":            "spec.ttlAfterFinished: expected 0s or more, got -1s",
		"ttlAfterFinished: 90000h":         "spec.ttlAfterFinished: expected at most 87600h0m0s",
		"until: 2026-12-01T00:00:00Z":      "",
		"until: 1999-12-01T00:00:00+01:00": "",
		"until: 2026-12-01":                `spec.until: expected a time with its offset from UTC, such as 2026-12-01T00:00:00Z or 2026-12-01T01:00:00+01:00, got "2026-12-01"`,
		"until: 1h":                        "spec.until: expected a time with its offset from UTC",
		"until: [a]":                       "spec.until: expected a single value",
		"until: 9999-12-01T00:00:00Z":      "spec.until: expected a year from 1970 to 2261, got 9999",
		"activeDeadlineSeconds: 30":        "activeDeadlineSeconds has another name here; use activeDeadline: 30s",
		"ttlSecondsAfterFinished: 30":      "ttlSecondsAfterFinished has another name here; use ttlAfterFinished: 1h",
		"activeDeadlin: 30s":               `did you mean "activeDeadline"?`,
	} {
		got := problems(t, with(spec))
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, expected %q", spec, got, want)
		}
	}
}

// A lifetime is no part of what runs: it is kept on record as it was written, and changes no
// hash.
func TestLifetimeHash(t *testing.T) {
	t.Parallel()
	entry := func(spec string) *Entry {
		docs, ps := Decode("web.yaml", []byte(with(spec)))
		if len(ps) > 0 || len(docs) != 1 {
			t.Fatalf("%s: %v", spec, ps)
		}
		e := docs[0].Entry()
		return &e
	}
	plain, bounded := entry("restartPolicy: Never"), entry("activeDeadline: 30s\n  until: 2026-12-01T01:00:00+01:00\n  ttlAfterFinished: 0s")
	if plain.Hash != bounded.Hash {
		t.Error("a lifetime restarts the sandbox")
	}
	b, err := Canonical(bounded.Sandbox)
	if err != nil {
		t.Fatal(err)
	}
	back, err := FromCanonical(b, "web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	l := back.Sandbox.Spec.Lifetime
	if l.ActiveDeadline == nil || time.Duration(*l.ActiveDeadline) != 30*time.Second || l.Until == nil || !l.Until.Equal(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)) || l.TTLAfterFinished == nil || *l.TTLAfterFinished != 0 {
		t.Errorf("%s", b)
	}
}
