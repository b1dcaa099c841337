// SPDX-License-Identifier: Apache-2.0

// Package sharing finds sandboxes that write the same files of the host. It is apart
// from the planner because it looks at manifests only: it decides nothing.
package sharing
