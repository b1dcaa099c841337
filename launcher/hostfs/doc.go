// SPDX-License-Identifier: Apache-2.0

// Package hostfs opens what sandboxes are given of the host's files: directories, single
// files and the view of the host's programs. A path is resolved once, without links,
// and handed over as a detached mount.
//
// It tells what a directory is by its filesystem and its place inside of it. A bind
// mount, a second mount of a filesystem or a layer of an overlay shows one directory
// under several paths; comparing paths misses that, and a sandbox would be given the
// state of its own daemon.
package hostfs
