// SPDX-License-Identifier: Apache-2.0

// Package pair starts a sentry and its gofer, gated, from a set-up: what is opened for
// them, which descriptors and arguments they get, and how they are isolated. It writes
// no record, and opens no gate before it is told to.
package pair
