// SPDX-License-Identifier: Apache-2.0

// Package needs is about what manifests refer to beside themselves: files of the host,
// and values of Config and Secret documents. It says what of it is missing, and whether
// it has changed since a start. Functions of values: it reads nothing.
package needs
