// SPDX-License-Identifier: Apache-2.0

//go:build !race

package desiredtest

const (
	Slower    = 1
	ShapePart = 1
)
