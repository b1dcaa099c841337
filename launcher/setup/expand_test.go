// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"slices"
	"testing"

	"sandboxctl.dev/desired"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	vars := map[string]string{"HOST": "db", "EMPTY": "", "REF": "$(HOST)", "A.B-C": "dotted"}
	lookup := func(n string) (string, bool) { v, ok := vars[n]; return v, ok }
	for in, want := range map[string]string{
		"":                    "",
		"plain":               "plain",
		"$(HOST)":             "db",
		"pg://$(HOST)/x":      "pg://db/x",
		"$(HOST)$(HOST)":      "dbdb",
		"$(EMPTY)":            "",
		"$(A.B-C)":            "dotted",
		"$(REF)":              "$(HOST)", // values are not expanded again
		"$$(HOST)":            "$(HOST)",
		"$$$(HOST)":           "$db",
		"$$$$(HOST)":          "$$(HOST)",
		"$(date)":             "$(date)", // for a shell
		"echo $(cat $(HOST))": "echo $(cat $(HOST))",
		"$HOST ${HOST}":       "$HOST ${HOST}",
		"$":                   "$",
		"$$":                  "$",
		"100$":                "100$",
		"$(HOST":              "$(HOST",
		"$()":                 "$()",
		"$( HOST )":           "$( HOST )",
		"$(host)":             "$(host)",
		"ü$(HOST)ü":           "üdbü",
	} {
		if got := expand(in, lookup); got != want {
			t.Errorf("expand(%q) = %q, expected %q", in, got, want)
		}
	}
}

func TestExpandProcess(t *testing.T) {
	t.Parallel()
	args, env := expandProcess(&desired.Spec{
		Env: []desired.EnvVar{
			{Name: "LATE", Value: "$(HOST)"}, // defined below: not known yet
			{Name: "HOST", Value: "db"},
			{Name: "URL", Value: "pg://$(HOST)/x"},
			{Name: "COPY", Value: "$(URL) $(LATE)"},
			{Name: "SELF", Value: "$(SELF):x"},
		},
		Command: []string{"$(HOST)", "-c"},
		Args:    []string{"echo $(URL) $(SELF) $(NOPE) $$(HOST)"},
	})
	if want := []string{"db", "-c", "echo pg://db/x $(SELF):x $(NOPE) $(HOST)"}; !slices.Equal(args, want) {
		t.Errorf("args %q, expected %q", args, want)
	}
	if want := []string{"LATE=$(HOST)", "HOST=db", "URL=pg://db/x", "COPY=pg://db/x $(HOST)", "SELF=$(SELF):x", DefaultPath}; !slices.Equal(env, want) {
		t.Errorf("env %q, expected %q", env, want)
	}
	if _, env = expandProcess(&desired.Spec{Env: []desired.EnvVar{{Name: "PATH", Value: "/opt"}}}); !slices.Equal(env, []string{"PATH=/opt"}) {
		t.Errorf("env %q: the default PATH must not follow one that is given", env)
	}
}
