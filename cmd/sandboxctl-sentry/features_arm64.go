// SPDX-License-Identifier: Apache-2.0

package main

import "gvisor.dev/gvisor/pkg/cpuid"

// settleFeatures has nothing to do: only the set of an x86 processor varies.
func settleFeatures(cpuid.FeatureSet) {}
