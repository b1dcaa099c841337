// SPDX-License-Identifier: Apache-2.0

// Package netns opens network namespaces that were made by others and passes
// what is in them through to a sandbox: the sandbox's own network stack takes the place
// of the kernel's on their interfaces, with the addresses and routes the kernel
// had, and the kernel serves them again when the sandbox has ended.
package netns
