// SPDX-License-Identifier: Apache-2.0

// Package links connects the network namespace of a sandbox with that of this program: a
// veth pair for each network, its addresses, routes and neighbors, and what of the kernel's
// settings that needs.
//
// The host routes; there is no bridge. A guest can't give itself another address or another
// hardware address, nor speak in the name of another one: neighbors are set at both ends and
// never asked for. What is set up is told by an Attachment alone, so that the same function
// makes it, and makes it again where somebody has removed a part of it. The kernel removes
// a pair when the namespace of the sandbox is gone, which is when its sentry is.
package links
