// SPDX-License-Identifier: Apache-2.0

// Package dns answers questions for names that sandboxes on networks ask: those of other
// sandboxes from a directory of package names, all others by asking the servers of the host
// or those that a manifest gives.
//
// Whoever asks is hostile. Only an address of a sandbox is answered; a question is parsed
// within a fixed buffer; what a sandbox may have under way, how fast it may ask, and the
// connections and sockets of all together are bounded, so that the daemon that this runs in
// is not worn out. Servers are not trusted to be who answers: a question leaves from a port
// and with an id that are random, and an answer that does not repeat id and question is
// passed over. An answer is passed on as it came; of its addresses, only public ones are
// reported as the meaning of a name of an egress rule: a name that its owner points into a
// private range must open nothing there.
package dns
