// SPDX-License-Identifier: Apache-2.0

package desired

// ignoreFile says which files of a directory and those below it are not manifests.
const ignoreFile = ".sandboxctlignore"

func (sc *scanner) ignored(string, bool) bool { return false }
