// SPDX-License-Identifier: Apache-2.0

// Package snapshot keeps named states of sandboxes in the state directory: each is made whole or
// not at all, and never changed. It decides what a start begins from.
package snapshot
