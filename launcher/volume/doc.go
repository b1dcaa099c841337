// SPDX-License-Identifier: Apache-2.0

// Package volume keeps named volumes: directories below the state directory that are made
// when a sandbox first uses them, and stay when it goes.
//
// STATE/volumes/NAME has two entries. data is the directory that sandboxes get; what is in
// it, its owner and its mode are theirs to change. meta.json says what the volume is, and is
// written last: without it there is no volume. Everything is opened below the descriptor of
// the state directory, and no link or mount is followed on the way.
//
// A volume is locked (flock on its directory) while it is made, restored or removed, and
// shared while a sandbox starts with it. Once the sandbox is on record, the record keeps the
// volume from being removed.
package volume
