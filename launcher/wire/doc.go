// SPDX-License-Identifier: Apache-2.0

// Package wire is what the launcher and the sentry binary agree on: the flags
// of the boot process, its protocol version, and the JSON forms of the control
// messages the launcher sends. The line by which a program says its version is
// the same for the sentry and the gofer.
//
// It depends on the standard library, so that
// the light binary does not link gVisor's sentry. The types mirror
// gVisor's own (pkg/sentry/control, runsc/boot); a test in
// cmd/sandboxctl-sentry, which links both, compares them field by field, so
// an upgrade of gVisor that changes the wire fails there.
package wire
