// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/cgroup"
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
	case app.Restores:
		return "it is restored from a checkpoint or snapshot" // in the place of all that a kernel runs
	case st.Passthrough:
		return "it is on a network"
	case app.Spec.Process.Terminal:
		return "its application has a terminal"
	case setup.Limit(st.Limits.CPU, st.Defaults.CPU) > 0:
		return "its processors are limited"
	case st.Limits.Memory > 0:
		return "it asks for a limit of memory"
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
	case longEnvironment(app.Spec.Process.Env):
		return "its environment has more than 16 KiB"
	case len(st.OnDisk()) > 0:
		return "it writes to files on the disk of the state directory"
	}
	return ""
}

// NoneFitForWarm says why no sandbox can have a warm sentry where those that ask for none have these
// limits, "" if some can. One that asks for more can't have one either.
func NoneFitForWarm(defaults cgroup.Limits) string {
	switch {
	case defaults.CPU > 0:
		return "by default the processors of sandboxes are limited"
	case defaults.Memory > 0 && defaults.Memory < leastWaitedMemory:
		return "by default the limit of memory of sandboxes is less than 1 GiB"
	}
	return ""
}

// mostEnvironment is how much of an environment a claim has room for. JSON makes up to six bytes
// of each.
const mostEnvironment = 16 << 10

func longEnvironment(env []string) bool {
	n := 0
	for _, e := range env {
		n += len(e)
	}
	return n > mostEnvironment
}
