// SPDX-License-Identifier: Apache-2.0

//go:build !race

package desiredtest

// Nothing is slower, and each hard shape is read whole, without the race detector.
const (
	Slower    = 1
	ShapePart = 1
)
