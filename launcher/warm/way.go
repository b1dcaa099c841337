// SPDX-License-Identifier: Apache-2.0

package warm

import (
	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/setup"
)

// count is how many are kept: pairs of processes that wait, and those with a warm sentry.
type count struct{ pairs, warm int }

// NoKernels says why no sentry boots a kernel under a policy that wants some, "" if they do: where no
// sandbox could ever take one, they would only take memory.
func NoKernels(policy *hostpolicy.Policy) string {
	if policy.WarmSentries() == 0 {
		return ""
	}
	return pair.NoneFitForWarm(defaults(policy))
}

// defaults are the limits of sandboxes that ask for none.
func defaults(policy *hostpolicy.Policy) cgroup.Limits {
	r := &policy.DefaultResources
	return cgroup.Limits{CPU: int64(r.CPU), Memory: int64(r.Memory), PIDs: r.PIDs}
}

// within is as many of them as n allows, first those without a kernel.
func (c count) within(n int) count {
	pairs := min(c.pairs, n)
	return count{pairs, min(c.warm, n-pairs)}
}

// Facts are what decides which way a start gets its processes.
type Facts struct {
	// Setup is what is to be started.
	Setup *setup.Setup
	// Wanted is how many pairs the host policy has wait, and Waiting how many do that this
	// start can have.
	Wanted, Waiting int
	// WantedWarm and Warm are the same of those with a warm sentry.
	WantedWarm, Warm int
	// Lack and LackWarm say why none waits, without a warm sentry and with one, "" if that is not
	// known.
	Lack, LackWarm string
}

// Choice is the way that a start gets its processes.
type Choice struct {
	// Way is one of Start.Way of a record.
	Way string
	// Why is what speaks against a better one.
	Why string
}

// Choose decides that, and nobody else does. It looks at nothing but the facts. A way that is
// added has its case before those that take longer.
func Choose(f *Facts) Choice {
	if f.Wanted == 0 && f.WantedWarm == 0 {
		return Choice{actual.WayCold, "the host policy has no processes wait"}
	}
	notWarm := against(pair.UnfitForWarm(f.Setup), f.WantedWarm, f.Warm, f.LackWarm)
	if notWarm == "" {
		return Choice{Way: actual.WayWarm}
	}
	notWaiting := against(pair.Unfit(f.Setup), f.Wanted, f.Waiting, f.Lack)
	switch {
	case notWaiting == "" && f.WantedWarm == 0:
		return Choice{Way: actual.WayWaiting}
	case notWaiting == "":
		return Choice{actual.WayWaiting, notWarm}
	case f.Wanted == 0:
		return Choice{actual.WayCold, notWarm}
	case f.WantedWarm == 0 || notWarm == notWaiting:
		return Choice{actual.WayCold, notWaiting}
	}
	if pair.UnfitForWarm(f.Setup) == "" {
		return Choice{actual.WayCold, notWarm + ", and " + notWaiting}
	}
	return Choice{actual.WayCold, notWarm + ", which no warm sentry takes, and " + notWaiting}
}

// against is what speaks against one way, "" if nothing does.
func against(unfit string, wanted, there int, lack string) string {
	switch {
	case unfit != "":
		return unfit
	case wanted > 0 && there > 0:
		return ""
	case lack != "":
		return lack
	}
	return "no processes were waiting at that moment"
}
