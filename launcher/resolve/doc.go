// SPDX-License-Identifier: Apache-2.0

// Package resolve completes a set-up with what only the host can tell: the config.json
// of a bundle, where links of a root lead, what is at the paths that are to be hidden,
// and the mappings of a user namespace. It starts nothing, and opens nothing that
// stays open.
package resolve
