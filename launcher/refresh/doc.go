// SPDX-License-Identifier: Apache-2.0

// Package refresh replaces the files of volumes in memory while their sandbox runs, and
// tells the application by a signal.
//
// The files are in tmpfs mounts that the gofer of the sandbox has made. They are read-only
// there, and stay so: a thread of this program enters the mount namespace of the gofer, by a
// verified pidfd, and clones the mount; the clone is writable, has no place in any tree, and
// is gone with its descriptor. Nothing of the gofer or the sentry has to help, and neither
// can write what is written here.
package refresh
