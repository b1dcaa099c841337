// SPDX-License-Identifier: Apache-2.0

// Package seccomp translates seccomp profiles of the runtime specification into those
// that gVisor builds the same filter from.
package seccomp
