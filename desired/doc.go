// SPDX-License-Identifier: Apache-2.0

// Package desired is what the author of the manifests wants: the kinds of
// documents, the types of a manifest, its defaults, validation and hash, and the
// Snapshot of a directory of them.
//
// A document is read as its apiVersion and kind say, by a table of kinds; package
// yamldoc knows the text and the places.
//
// Nothing in a manifest is ever ignored. An unknown or duplicate field, a
// value of another type, a field this version can't honour: each is a Problem
// with file, line, column and field, and all of them are reported at once.
//
// What is absent from a Snapshot counts as absent only if the Snapshot says so
// (Removed). Package manifestdir reads the directory and finds that out; package
// hostpolicy judges what a manifest may ask for.
//
// This package knows nothing of processes or records: desired and actual state
// meet in package reconcile.
package desired
