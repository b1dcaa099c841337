// SPDX-License-Identifier: Apache-2.0

package appstart

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/guest"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// giveStartHooks has the sentry start this program, from a descriptor, for the
// hooks. It becomes the application, which has no access to it or to the pipe then.
func giveStartHooks(st *setup.Setup, name string, reportFD int, d *proc.Donation) (fd int, _ *specs.Process, err error) {
	p := *st.App().Spec.Process
	if p.Args, err = guest.Argv(&guest.Config{
		ReportFD: reportFD,
		Hooks:    st.App().StartHooks.Hooks.StartContainer,
		State:    st.App().StartHooks.State(name, specs.StateCreated, 1),
	}, p.Args); err != nil {
		return 0, nil, err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return 0, nil, fmt.Errorf("open own program: %w", err)
	}
	return d.Give(self), &p, nil
}
