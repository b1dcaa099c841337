// SPDX-License-Identifier: Apache-2.0

//go:build race

package desired

// The race detector makes things slower, by so many times at most; what it looks
// at is a part of each hard shape. `make budget` is without it, and all of them.
const (
	slower    = 12
	shapePart = 16
)
