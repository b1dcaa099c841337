// SPDX-License-Identifier: Apache-2.0

// Package passthrough gives a sandbox what is in its network namespace: what that had is on
// record before anything is taken out of it, and is put back when the sandbox has ended.
package passthrough
