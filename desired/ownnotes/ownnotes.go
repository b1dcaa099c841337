// SPDX-License-Identifier: Apache-2.0

// Package ownnotes has the annotations that sandboxctl alone gives to a sandbox: what that was
// made of, if a claim stands for it. Who writes a manifest may not: it would take a place of a pool.
package ownnotes

import (
	"maps"
	"slices"
)

// The annotations.
const (
	// Pool is the name of the pool.
	Pool = "sandboxctl.dev/pool"
	// Claim identifies the claim that the sandbox was made for.
	Claim = "sandboxctl.dev/claim"
	// Deadline is the activeDeadline of the template that it was made of, missing if that had none.
	Deadline = "sandboxctl.dev/template-deadline"
)

// Among are those among annotations, sorted.
func Among(annotations map[string]string) (names []string) {
	for _, name := range []string{Claim, Pool, Deadline} {
		if _, given := annotations[name]; given {
			names = append(names, name)
		}
	}
	return names
}

// Without are annotations without them, nil if there are no others.
func Without(annotations map[string]string) map[string]string {
	out := maps.Clone(annotations)
	maps.DeleteFunc(out, func(name, _ string) bool { return slices.Contains(Among(annotations), name) })
	if len(out) == 0 {
		return nil
	}
	return out
}
