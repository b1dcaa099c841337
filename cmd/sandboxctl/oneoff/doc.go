// SPDX-License-Identifier: Apache-2.0

// Package oneoff is about sandboxes that are made for one command, as by the verb run: their
// manifest, which names the process that they are for, and whether that process is gone.
package oneoff
