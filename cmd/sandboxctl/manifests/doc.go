// SPDX-License-Identifier: Apache-2.0

// Package manifests has the verbs for those who write manifests: they check files, and
// change what is in the manifests directory. Nothing here starts or stops a sandbox;
// the daemon does, when it reads the directory.
package manifests
