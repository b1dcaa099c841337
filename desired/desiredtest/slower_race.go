// SPDX-License-Identifier: Apache-2.0

//go:build race

package desiredtest

// The race detector makes reading slower, by so many times at most. What it
// looks at is a part of each hard shape. `make budget` is without it, and all of them.
const (
	Slower    = 12
	ShapePart = 16
)
