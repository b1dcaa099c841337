// SPDX-License-Identifier: Apache-2.0

//go:build !race

package desired

const (
	slower    = 1
	shapePart = 1
)
