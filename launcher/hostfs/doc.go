// SPDX-License-Identifier: Apache-2.0

// Package hostfs tells what a directory of the host is by its filesystem and its
// place inside of it. A bind mount, a second mount of a filesystem or a layer of
// an overlay shows one directory under several paths; comparing paths misses
// that, and a sandbox would be given the state of its own daemon.
package hostfs
