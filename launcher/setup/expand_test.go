// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/envfile"
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
		if got, fits := expand(in, len(want), lookup); got != want || !fits {
			t.Errorf("expand(%q) = %q, expected %q", in, got, want)
		}
	}
}

func TestExpandProcess(t *testing.T) {
	t.Parallel()
	args, env, err := expandProcess(&desired.Sandbox{Spec: desired.Spec{
		Env: []desired.EnvVar{
			{Name: "LATE", Value: "$(HOST)"}, // defined below: not known yet
			{Name: "HOST", Value: "db"},
			{Name: "URL", Value: "pg://$(HOST)/x"},
			{Name: "COPY", Value: "$(URL) $(LATE)"},
			{Name: "SELF", Value: "$(SELF):x"},
		},
		Command: []string{"$(HOST)", "-c"},
		Args:    []string{"echo $(URL) $(SELF) $(NOPE) $$(HOST)"},
	}}, nil)
	if err != nil {
		t.Error(err)
	}
	if want := []string{"db", "-c", "echo pg://db/x $(SELF):x $(NOPE) $(HOST)"}; !slices.Equal(args, want) {
		t.Errorf("args %q, expected %q", args, want)
	}
	if want := []string{"LATE=$(HOST)", "HOST=db", "URL=pg://db/x", "COPY=pg://db/x $(HOST)", "SELF=$(SELF):x", DefaultPath}; !slices.Equal(env, want) {
		t.Errorf("env %q, expected %q", env, want)
	}
	if _, env, err = expandProcess(&desired.Sandbox{Spec: desired.Spec{Env: []desired.EnvVar{{Name: "PATH", Value: "/opt"}}}}, nil); err != nil || !slices.Equal(env, []string{"PATH=/opt"}) {
		t.Errorf("env %q: the default PATH must not follow one that is given", env)
	}
}

// Variables of files come first, may be referred to, and are replaced by those of env.
func TestExpandWithFiles(t *testing.T) {
	t.Parallel()
	sb := &desired.Sandbox{Metadata: desired.Metadata{Name: "web", Labels: map[string]string{"tier": "front"}}, Spec: desired.Spec{
		Env: []desired.EnvVar{
			{Name: "URL", Value: "pg://$(USER):$(PASSWORD)@db"},
			{Name: "USER", Value: "other"},
			{Name: "NAME", ValueFrom: &desired.EnvSource{Field: "metadata.name"}},
			{Name: "TIER", ValueFrom: &desired.EnvSource{Field: "metadata.labels['tier']"}},
			{Name: "BOTH", Value: "$(NAME)-$(TIER)"},
			{Name: "PASSWORD", ValueFrom: &desired.EnvSource{File: "/srv/password"}},
			{Name: "MISSING", ValueFrom: &desired.EnvSource{File: "/srv/missing", Optional: true}},
		},
		Command: []string{"app", "$(USER)", "$(PASSWORD)"},
	}}
	from := []envfile.Variable{{Name: "USER", Value: "shop"}, {Name: "PASSWORD", Value: "$(USER)"}, {Name: "PATH", Value: "/opt"}}
	args, env, err := expandProcess(sb, from)
	if err != nil {
		t.Error(err)
	}
	if want := []string{"app", "other", "$(USER)"}; !slices.Equal(args, want) {
		t.Errorf("args %q, expected %q", args, want)
	}
	want := []string{"USER=other", "PASSWORD=$(USER)", "PATH=/opt", "URL=pg://shop:$(USER)@db", "NAME=web", "TIER=front", "BOTH=web-front"}
	if !slices.Equal(env, want) {
		t.Errorf("env %q, expected %q", env, want)
	}
	// What is written down has no value of theirs, and no empty one.
	if args, env, err = expandProcess(sb, nil); err != nil || !slices.Equal(args, []string{"app", "other", "$(PASSWORD)"}) || !slices.Contains(env, "URL=pg://$(USER):$(PASSWORD)@db") || slices.Contains(env, "PASSWORD=") {
		t.Errorf("%q %q", args, env)
	}
}

// References can't make strings that the kernel refuses, nor as many as take the memory
// of the daemon.
func TestExpandLimits(t *testing.T) {
	t.Parallel()
	double := func(n int) (env []desired.EnvVar) {
		env = []desired.EnvVar{{Name: "A0", Value: "0123456789abcdef"}}
		for i := 1; i < n; i++ {
			env = append(env, desired.EnvVar{Name: fmt.Sprintf("A%d", i), Value: fmt.Sprintf("$(A%d)$(A%d)", i-1, i-1)})
		}
		return env
	}
	large := envfile.Variable{Name: "L", Value: strings.Repeat("x", 100<<10)}
	for name, c := range map[string]struct {
		spec desired.Spec
		from []envfile.Variable
		want string
	}{
		"doubled":           {desired.Spec{Env: double(13)}, nil, ""},
		"doubled for ever":  {desired.Spec{Env: double(60)}, nil, "spec.env[13]: it has more than 131071 bytes, with references replaced"},
		"twice in one":      {desired.Spec{Args: []string{"a", "$(L)$(L)"}}, []envfile.Variable{large}, "spec.args[1]: it has more than 131071 bytes"},
		"often in one":      {desired.Spec{Env: []desired.EnvVar{{Name: "A", Value: strings.Repeat("$(L)", 1<<16)}}}, []envfile.Variable{large}, "spec.env[0]: it has more"},
		"in many values":    {desired.Spec{Env: slices.Repeat([]desired.EnvVar{{Name: "A", Value: "$(L)"}}, 100)}, []envfile.Variable{large}, ""}, // of one name
		"in many arguments": {desired.Spec{Command: slices.Repeat([]string{"$(L)"}, 20000)}, []envfile.Variable{large}, "the command and the environment have more than 1048576 bytes"},
		"many arguments":    {desired.Spec{Command: slices.Repeat([]string{""}, maxStrings+1)}, nil, "the command and the environment have more than 1048576 bytes"},
		"many variables": {desired.Spec{}, slices.Collect(func(yield func(envfile.Variable) bool) {
			for i := range 200000 {
				if !yield(envfile.Variable{Name: fmt.Sprintf("A%06d", i)}) {
					return
				}
			}
		}), "the command and the environment have more than 1048576 bytes"},
		"name and value":     {desired.Spec{}, []envfile.Variable{{Name: "NAME", Value: strings.Repeat("x", maxString-5)}}, ""},
		"a byte more":        {desired.Spec{}, []envfile.Variable{{Name: "NAME", Value: strings.Repeat("x", maxString-4)}}, "variable NAME: the name and the value have 131072 bytes, at most 131071 are possible"},
		"a long argument":    {desired.Spec{Command: []string{strings.Repeat("x", maxString+1)}}, nil, "spec.command[0]: it has more than 131071 bytes"},
		"the longest of all": {desired.Spec{Command: []string{strings.Repeat("x", maxString)}}, nil, ""},
	} {
		_, _, err := expandProcess(&desired.Sandbox{Spec: c.spec}, c.from)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
	}
	// Of a manifest alone it is told for good, of files until these change.
	sb := &desired.Sandbox{Metadata: desired.Metadata{Name: "a"}, Spec: desired.Spec{Root: desired.Root{Host: &desired.HostRoot{}}, Env: double(40)}}
	desired.Default(sb)
	if _, err := FromManifest(sb, nil, nil, nil); !operation.Permanent(err) {
		t.Errorf("%v", err)
	}
	sb.Spec.Env, sb.Spec.Command = nil, []string{"app", "$(L)$(L)"}
	st, err := FromManifest(sb, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.UsePrivate(sb, []envfile.Variable{large}); operation.Permanent(err) || !operation.PreconditionFailed(err) {
		t.Errorf("%v", err)
	}
}
