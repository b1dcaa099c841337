// SPDX-License-Identifier: Apache-2.0

package desired_test

import (
	"strings"
	"testing"

	"sandboxctl.dev/desired"
)

// A time zone is a name of the database, and nothing else in the manifest says another.
func TestTimezone(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: " + desired.APIVersion + "\nkind: Sandbox\nmetadata: {name: web}\nspec:\n  command: [a]\n"
	for fields, want := range map[string]string{
		"root: {host: {}}\n  timezone: Europe/Berlin":                          "",
		"root: {host: {}}\n  timezone: host":                                   "",
		"root: {dir: /srv/r}\n  timezone: UTC":                                 "",
		"root: {image: {ref: nginx}}\n  overlay: none\n  timezone: Asia/Tokyo": "",
		"root: {host: {}}\n  timezone: ../../etc/shadow":                       "7:3: spec.timezone: expected the name of a time zone",
		"root: {host: {}}\n  timezone: /etc/localtime":                         "expected the name of a time zone",
		"root: {host: {}}\n  timezone: Europe/Nowhere":                         "there is no time zone",
		"root: {host: {}}\n  timezone: localtime":                              "use host",
		"root: {host: {}}\n  timezone: 1":                                      "spec.timezone: expected a string",
		"root: {dir: /srv/r}\n  overlay: none\n  timezone: host":               "is not possible with overlay none",
		"root: {host: {}}\n  timezone: host\n  env: [{name: TZ, value: UTC}]":  "spec.env[0].name: TZ is set by timezone",
		"root: {host: {}}\n  timezone: host\n  volumes: [{name: l, mountPath: /etc/localtime, readOnly: true, hostPath: /usr/share/zoneinfo/UTC}]": "/etc/localtime is made by timezone",
		"root: {host: {}}\n  tz: Europe/Berlin":        "tz has another name here; use timezone: Europe/Berlin",
		"root: {host: {}}\n  timezones: Europe/Berlin": "did you mean",
	} {
		docs, problems := desired.Decode("m.yaml", []byte(head+"  "+fields+"\n"))
		switch {
		case want == "" && (len(problems) > 0 || len(docs) != 1):
			t.Errorf("%s: %v", fields, problems)
		case want != "" && (len(problems) == 0 || !strings.Contains(problems[0].Error(), want)):
			t.Errorf("%s: %v, expected %q", fields, problems, want)
		}
	}
	// Only that of the host is looked at again.
	for zone, n := range map[string]int{"": 0, "Europe/Berlin": 0, "host": 1} {
		s := desired.Spec{Timezone: zone}
		if refs := s.FileRefs(); len(refs) != n || n == 1 && (refs[0].Path != desired.HostZoneRef || refs[0].OnChange != desired.OnChangeRestart) {
			t.Errorf("%s: %+v", zone, refs)
		}
	}
}

// The manifest of a sandbox that runs is read from its record, also when the host has lost
// the zone since.
func TestTimezoneOnRecord(t *testing.T) {
	t.Parallel()
	for tz, good := range map[string]bool{"Europe/Berlin": true, "host": true, "Gone/Zone": true, "../../etc/shadow": false} {
		sb := &desired.Sandbox{APIVersion: desired.APIVersion, Kind: desired.Kind, Metadata: desired.Metadata{Name: "web"}, Spec: desired.Spec{
			Root: desired.Root{Host: &desired.HostRoot{}}, Command: []string{"a"}, Timezone: tz,
		}}
		desired.Default(sb)
		b, err := desired.Canonical(sb)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := desired.FromCanonical(b, "f.yaml"); (err == nil) != good || good && e.Sandbox.Spec.Timezone != tz {
			t.Errorf("%s: %v", tz, err)
		}
	}
}
