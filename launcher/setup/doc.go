// SPDX-License-Identifier: Apache-2.0

// Package setup decides what to build for a sandbox: the spec for the sentry, the
// trees that the gofer serves, limits, network and hooks. It derives a Setup from a
// manifest, a bundle or the config.json of an OCI client. It touches nothing on the
// host: what it needs to know is passed in, and package launcher builds what it says.
package setup
