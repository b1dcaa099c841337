// SPDX-License-Identifier: Apache-2.0

// Package manifestdir reads a directory of manifests, again and again, and says
// what it holds as a whole: a desired.Snapshot.
//
// A notification that something changed only says when to look. A file counts only
// if nobody but root could change it, if it is whole, and if it is a regular file.
// What is absent counts as absent only if the directory is the one that was there
// before, all of it could be read, and the absence lasted: a directory that is
// missing, replaced, unreadable or holds a broken file says nothing of what is not
// in it.
package manifestdir
