// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"gvisor.dev/gvisor/pkg/cpuid"
)

// xsaveLeaf is the leaf that tells the extensions of XSAVE.
var xsaveLeaf = cpuid.In{Eax: 0xd, Ecx: 1}

// TestFeaturesSettle checks that a kernel saved by one sentry fits the host of
// another on the same processor, with XSAVE and without.
func TestFeaturesSettle(t *testing.T) {
	features := cpuid.In{Eax: 1}
	for name, change := range map[string]func(cpuid.Static){
		"as it is": func(cpuid.Static) {},
		"no XSAVE": func(s cpuid.Static) {
			o := s[features]
			o.Ecx &^= 1<<26 | 1<<27
			s[features] = o
			delete(s, xsaveLeaf)
		},
		"no XSAVE, and its leaf has another's content": func(s cpuid.Static) {
			o := s[features]
			o.Ecx &^= 1<<26 | 1<<27
			s[features], s[xsaveLeaf] = o, cpuid.Out{Eax: 0xf}
		},
		"XSAVE not enabled by the kernel": func(s cpuid.Static) {
			o := s[features]
			o.Ecx &^= 1 << 27
			s[features] = o
		},
	} {
		t.Run(name, func(t *testing.T) {
			cpuid.Initialize()
			processor := cpuid.HostFeatureSet().ToStatic()
			change(processor)
			// Each sentry makes its own copy; the order in which it does so is random.
			var hosts, saved []cpuid.FeatureSet
			for range 40 {
				host := cpuid.FeatureSet{Function: processor}.Fixed()
				settleFeatures(host)
				hosts, saved = append(hosts, host), append(saved, host.Fixed())
			}
			for _, s := range saved {
				for _, h := range hosts {
					if left := s.Subtract(h); left != nil {
						t.Fatalf("a checkpoint has features that the same processor lacks: %v", left)
					}
				}
				if s.UseXsave() != (cpuid.FeatureSet{Function: processor}).UseXsave() {
					t.Fatal("the use of XSAVE changed")
				}
			}
		})
	}
}
