// SPDX-License-Identifier: Apache-2.0

// Package hostmem tells how much memory the host could still give, and when processes wait
// for memory.
package hostmem
