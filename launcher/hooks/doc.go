// SPDX-License-Identifier: Apache-2.0

// Package hooks runs the hooks of a container on the host, as the OCI specification
// has it: one after the other, as this process, with the state on stdin. Each has a
// time limit, and its whole process group is killed when that is over.
package hooks
