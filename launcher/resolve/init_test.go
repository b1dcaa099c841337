// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
)

func TestChooseInit(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for name, c := range map[string]struct {
		change func(*desired.Spec)
		want   string
	}{
		"nothing said": {nil, actual.InitOwn},
		"asked for":    {func(s *desired.Spec) { s.Init = &yes }, actual.InitOwn},
		"refused":      {func(s *desired.Spec) { s.Init = &no }, "none: spec.init is false"},
		"an init":      {func(s *desired.Spec) { s.Command = []string{"/usr/bin/tini", "--", "app"} }, "none: the command is an init process"},
		"by a variable": {func(s *desired.Spec) {
			s.Command, s.Env = []string{"$(I)"}, []desired.EnvVar{{Name: "I", Value: "dumb-init"}}
		}, "none: the command is an init process"},
		"one process":   {func(s *desired.Spec) { s.Rlimits = []desired.Rlimit{{Type: "nproc", Soft: 1, Hard: 9}} }, "none: rlimits allow one process"},
		"two processes": {func(s *desired.Spec) { s.Rlimits = []desired.Rlimit{{Type: "nproc", Soft: 2, Hard: 9}} }, actual.InitOwn},
		"a terminal":    {func(s *desired.Spec) { s.Terminal = true }, actual.InitOwn},
	} {
		st, err := FromManifest(manifest(c.change), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if st.App().Init != c.want || st.Reports() != (c.want == actual.InitOwn) {
			t.Errorf("%s: %q, expected %q", name, st.App().Init, c.want)
		}
	}
	// An OCI client's container has none, whatever it runs.
	bundle := t.TempDir()
	if err := os.Mkdir(bundle+"/r", 0o700); err != nil {
		t.Fatal(err)
	}
	st, err := FromContainer(&specs.Spec{Version: specs.Version, Root: &specs.Root{Path: "r"}, Process: &specs.Process{Args: []string{"sh"}, Cwd: "/"}}, bundle)
	if err != nil || st.App().Init != "" || st.Reports() {
		t.Errorf("%+v %v", st, err)
	}
}
