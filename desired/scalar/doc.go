// SPDX-License-Identifier: Apache-2.0

// Package scalar has the values that authors write as one word: processors, bytes,
// durations, signals.
package scalar
