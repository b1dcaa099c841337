// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/setup"
)

func fitting() *setup.Setup {
	return &setup.Setup{Containers: []setup.Container{{Spec: &specs.Spec{Process: &specs.Process{}}}}, Defaults: cgroup.Limits{PIDs: 2048}}
}

// Whatever is fixed when a kernel is booted makes a set-up unfit for a warm sentry.
func TestUnfitForWarm(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*setup.Setup){
		"":                   func(*setup.Setup) {},
		"spec.network.mode":  func(st *setup.Setup) { st.NetNS = "/x" },
		"on a network":       func(st *setup.Setup) { st.Passthrough = true },
		"terminal":           func(st *setup.Setup) { st.App().Spec.Process.Terminal = true },
		"processors":         func(st *setup.Setup) { st.Limits.CPU = 500 },
		"limit of memory":    func(st *setup.Setup) { st.Limits.Memory = 64 << 30 },
		"rlimits":            func(st *setup.Setup) { st.App().Spec.Process.Rlimits = []specs.POSIXRlimit{{}} },
		"limit of processes": func(st *setup.Setup) { st.Limits.PIDs = 7 },
		"init process":       func(st *setup.Setup) { st.App().Init = actual.InitOwn },
		"hooks":              func(st *setup.Setup) { st.App().StartHooks = &setup.Hooks{} },
		"environment":        func(st *setup.Setup) { st.App().Spec.Process.Env = []string{"A=" + strings.Repeat("b", 16<<10)} },
		"raw sockets":        func(st *setup.Setup) { st.RawSockets = true },
		"snapshot":           func(st *setup.Setup) { st.App().Restores = true },
		"on the disk":        func(st *setup.Setup) { st.App().Overlay = "disk" },
		"more than one":      func(st *setup.Setup) { st.Containers = append(st.Containers, setup.Container{}) },
	} {
		st := fitting()
		change(st)
		if why := UnfitForWarm(st); (why == "") != (want == "") || !strings.Contains(why, want) {
			t.Errorf("%q, expected %q", why, want)
		}
	}
}
