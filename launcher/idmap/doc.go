// SPDX-License-Identifier: Apache-2.0

// Package idmap says who the users of a sandbox are on the host: what the kernel takes as
// mappings of a user namespace, from a manifest or from a config.json.
package idmap
