// SPDX-License-Identifier: Apache-2.0

// Package checkpoint writes the state of a running sandbox into a directory, with a
// description, and says before a restore whether it would succeed.
package checkpoint
