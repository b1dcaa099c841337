// SPDX-License-Identifier: Apache-2.0

// Command bench measures what sandboxctl takes beside its peers: runsc of the same
// gVisor, and podman with that runsc, runc, and s6 with that runsc where they are
// installed.
//
// The part images-run has sandboxes of an image, and containers of podman with runsc of
// the same tree. The part networks has sandboxes on a network, and containers on a bridge of
// podman, each on a host of its own that is a network namespace of the run.
//
// Every figure is a median of rounds. In each round every peer is measured once, in
// a random order, so that a change of the machine's clock or load hits all of them.
// Only ratios of one run are to be compared. Everything runs in a cgroup of its own,
// whose processor time is that of the measurement. Nothing here polls faster than
// every 10 ms: times of what happened are read from logs and records. Only who waits for the
// first answer at a published port tries every 5 ms: nobody else can tell when that is.
package main
