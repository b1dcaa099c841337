// SPDX-License-Identifier: Apache-2.0

// Package addresses chooses the addresses of sandboxes and the subnets of networks.
// It is a function of values: what is taken is given by the caller, who asks records and
// the host, so that nothing of its own can disagree with them after a crash.
package addresses
