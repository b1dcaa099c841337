// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/setup"
)

// Whatever is fixed before a process has its sandbox makes a set-up unfit, and nothing else.
func TestUnfit(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		change func(*setup.Setup)
		want   string
	}{
		"as it is by default": {func(*setup.Setup) {}, ""},
		"pids":                {func(st *setup.Setup) { st.Limits.PIDs = 10 }, ""},
		"overlay":             {func(st *setup.Setup) { st.App().Overlay = "disk" }, ""},
		"host":                {func(st *setup.Setup) { st.HostNetwork = true }, "network of the host"},
		"netns":               {func(st *setup.Setup) { st.NetNS, st.Passthrough = "/run/netns/x", true }, "network namespace"},
		"networks":            {func(st *setup.Setup) { st.Passthrough = true }, ""},
		"direct":              {func(st *setup.Setup) { st.DirectFS = true }, "spec.fileAccess"},
		"ids":                 {func(st *setup.Setup) { st.Maps = &idmap.Maps{} }, "idMappings"},
		"terminal":            {func(st *setup.Setup) { st.App().Spec.Process.Terminal = true }, ""},
		"restored":            {func(st *setup.Setup) { st.App().Restores = true }, ""},
		"cpu":                 {func(st *setup.Setup) { st.Limits.CPU = 500 }, ""},
		"default cpu":         {func(st *setup.Setup) { st.Defaults.CPU = 500 }, ""},
		"memory":              {func(st *setup.Setup) { st.Limits.Memory = leastWaitedMemory }, ""},
		"little memory":       {func(st *setup.Setup) { st.Limits.Memory, st.Defaults.Memory = leastWaitedMemory-1, 64<<30 }, "less than 1 GiB"},
		"small default":       {func(st *setup.Setup) { st.Defaults.Memory = leastWaitedMemory - 1 }, "less than 1 GiB"},
		"least default":       {func(st *setup.Setup) { st.Defaults.Memory = leastWaitedMemory }, ""},
	} {
		st := &setup.Setup{Containers: []setup.Container{{Spec: &specs.Spec{Process: &specs.Process{}}}}, Defaults: cgroup.Limits{PIDs: 2048}}
		c.change(st)
		if why := Unfit(st); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s: %q, expected %q", what, why, c.want)
		}
	}
}
