// SPDX-License-Identifier: Apache-2.0

package pidone

import "sandboxctl.dev/launcher/onepage"

// Available says whether there is an init process for this processor.
func Available() bool { return instructions() != nil }

// Program is the init process of one sandbox, an ELF file: it executes the first of
// the files that is there.
func Program(try []string) []byte {
	var files []byte
	for _, f := range try {
		files = append(append(files, f...), 0)
	}
	return onepage.File(instructions(), append(files, 0))
}
