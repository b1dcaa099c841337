// SPDX-License-Identifier: Apache-2.0

// Package firewall holds what sandboxes on networks may reach, and who may reach them: one
// table of nftables, whose rules are a pure function of the sandboxes that run.
//
// compile makes the rules of a Ruleset and touches nothing; Table installs them in one
// transaction, so that no packet sees half of them. Counters of sandboxes, and addresses
// learned from names, stay when rules are installed again. Nothing outside of the table is
// changed: what another table drops stays dropped.
//
// An install is a step by the difference of two programs, as long as the generation of the
// rules, or a look at the table, says that nobody else has changed it; else all is made again.
//
// A packet of a sandbox passes these chains:
//
//	sources      its address must be the one of its link; else it is dropped
//	published    the address of the host becomes the one of the sandbox that publishes the port
//	input        for the host itself: DNS and echo, and what rules name
//	forward      from: the topology of networks, then egress; to: published ports, then ingress
//	connections  how many the kernel keeps for one sandbox, of those that are let through
//	masquerade   what leaves to other interfaces has the address of the host
//
// Rules are found by maps from the host end of a link to a chain. A sandbox without rules of
// its own has four chains of one rule, for its counters, and one that bounds its connections.
package firewall
