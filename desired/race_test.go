// SPDX-License-Identifier: Apache-2.0

//go:build race

package desired

// slower is how many times longer the race detector may make things.
const slower = 12
