// SPDX-License-Identifier: Apache-2.0

// Package oci is the launcher as an OCI runtime: containers of bundles that a
// client such as podman or containerd's shim creates, starts and deletes by
// hand, each call a process of its own. There is no daemon and no manifest; what
// is shared with the reconciled sandboxes is everything below: launcher, gofer,
// sentry, records and process identity.
package oci
