// SPDX-License-Identifier: Apache-2.0

// Package desired is what the author of the manifests wants: the types of a
// manifest, its strict decoding, defaults, validation and hash, and the
// directory it comes from.
//
// A document is read as its apiVersion and kind say, by a table of kinds; package
// yamldoc knows the text and the places.
//
// Nothing in a manifest is ever ignored. An unknown or duplicate field, a
// value of another type, a field this version can't honour: each is a Problem
// with file, line, column and field, and all of them are reported at once.
// Input is hostile: sizes are checked before anything is parsed, anchors,
// aliases and tags are refused, and a file is only ever a regular file.
//
// The directory is looked at as a whole, again and again; a notification that
// something changed only says when to look. What is absent counts as absent
// only in a Snapshot that is Complete: a directory that is missing, replaced,
// unreadable or holds a broken file says nothing of what is not in it.
//
// This package knows nothing of processes or records: desired and actual state
// meet in package reconcile.
package desired
