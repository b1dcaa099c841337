// SPDX-License-Identifier: Apache-2.0

// Package crashpoint names the moments at which a crash is tried: just before
// and just after every side effect of the daemon, the launcher, a gofer's start
// and the atomic writer.
//
// In a release build the calls are empty and nothing of this package is in the
// programs; a test looks. Built with the tag "crashpoints", a program that finds
// the variable SANDBOXCTL_CRASHPOINTS writes down every point that it passes, and
// kills itself at the one it is told. The tests of cmd/sandboxctl do that for
// every point and look what the next daemon makes of it.
//
// The doc comment of a point ends with the file that it is in. A test compares
// both: a point that is nowhere, or a call without a point, fails it.
package crashpoint
