// SPDX-License-Identifier: Apache-2.0

// Package cni puts sandboxes on networks of CNI, the Container Network Interface: programs of
// the host, called plugins, make the interface of a sandbox in a namespace that is made for it,
// and undo that when it has ended.
//
// Plugins run as root. So their configuration and programs are opened only if nobody else
// could change them, and what they may take of this host is bounded: time, output, memory. What
// they were asked for and what they returned is on record, and they are asked to undo it until
// they say that it is undone.
package cni
