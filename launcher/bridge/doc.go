// SPDX-License-Identifier: Apache-2.0

// Package bridge keeps sandboxes on the networks that their manifests join, mode bridge: it
// chooses their addresses, which go on record before anything is made, makes their links,
// and has the firewall as the records and manifests say.
//
// It has no state that could be lost. What a sandbox is attached to is on its record; the
// subnets that were chosen are in files of the state directory; the rules are made of all
// records that may run, each time anew. So the same call serves a start, the start of a
// daemon, and a table that somebody has flushed.
package bridge
