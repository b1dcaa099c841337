// SPDX-License-Identifier: Apache-2.0

package main

import "gvisor.dev/gvisor/pkg/cpuid"

// settleFeatures gives the feature set of a host without XSAVE one fixed value.
//
// gVisor copies the set feature by feature in random order, and each feature that
// needs XSAVE turns XSAVE on, also where it is absent itself. Whether a copy has
// XSAVE is chance: one kernel is saved with it, and the host of the next sentry
// lacks it and refuses the checkpoint. With XSAVE in the host's set, each copy of
// it is a part of it. The instructions need OSXSAVE too, which no copy invents.
func settleFeatures(host cpuid.FeatureSet) {
	set, ok := host.Function.(cpuid.Static)
	if !ok || host.HasFeature(cpuid.X86FeatureOSXSAVE) {
		return
	}
	// A processor without this leaf answers with another one's content.
	set.Set(cpuid.In{Eax: 0xd, Ecx: 1}, cpuid.Out{})
	set.Add(cpuid.X86FeatureXSAVE)
}
