// SPDX-License-Identifier: Apache-2.0

// Package daemon is the verb daemon: it wires manifests, observer, launcher and loop
// together, keeps what must outlive this process, and tells when something about the
// host has changed.
package daemon
