// SPDX-License-Identifier: Apache-2.0

// Package oneoff is about sandboxes that are made for one command, as by the verb run: their
// manifest, which names the process that they are for, whether that process is gone, and whether
// a sandbox of the name is still for it.
package oneoff
