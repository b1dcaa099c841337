// SPDX-License-Identifier: Apache-2.0

// Package packetlog writes packets of sandboxes into the log of the daemon, that rules of the
// firewall have logged: what was refused, and the beginnings of connections that were allowed.
//
// A guest decides how many packets there are, and what is in them. So the kernel hands over a
// few of each sandbox in a second, and here all of them together have a bound too; what is
// beyond is told as a number. Of a packet nothing but addresses, ports and the protocol is
// written. Nobody waits for the log: packets for which there is no room are lost.
package packetlog
