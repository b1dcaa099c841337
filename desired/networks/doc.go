// SPDX-License-Identifier: Apache-2.0

// Package networks is what manifests say of networks: the spec.network of a sandbox, the
// spec of a Network document, and the rules in them, parsed and checked. It decides on text
// alone: whether a port is free and an address unused is a matter of the host.
package networks
