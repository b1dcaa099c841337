// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/setup"
)

// UnfitForWarm says why a sandbox can't have a warm sentry, "" if it can: as Unfit, and what is
// fixed when its kernel is booted. Commands of the sandbox have the limits of the first
// container, and nothing can be passed to the second one but stdin, stdout and stderr.
func UnfitForWarm(st *setup.Setup) string {
	app := st.App()
	switch why := Unfit(st); {
	case why != "":
		return why
	case len(st.Containers) != 1:
		return "it has more than one container"
	case st.RawSockets:
		return "it may have raw sockets"
	case app.Init == actual.InitOwn:
		return "it has an init process"
	case app.StartHooks != nil:
		return "it has hooks that run in the sandbox"
	case len(app.Spec.Process.Rlimits) > 0:
		return "it has rlimits"
	case st.Limits.PIDs > 0:
		return "it asks for a limit of processes"
	case len(st.OnDisk()) > 0:
		return "it writes to files on the disk of the state directory"
	}
	return ""
}
