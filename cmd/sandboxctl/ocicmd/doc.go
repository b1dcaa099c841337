// SPDX-License-Identifier: Apache-2.0

// Package ocicmd is the command line of an OCI runtime: runc's verbs, flags, exit
// codes and log, in front of launcher/oci. Its clients are podman and containerd; what
// they parse is decided here and nowhere else.
package ocicmd
