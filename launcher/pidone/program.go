// SPDX-License-Identifier: Apache-2.0

package pidone

import "sandboxctl.dev/launcher/onepage"

// Available says whether there is an init process for this processor.
func Available() bool { return instructions() != nil }

// Hold is the command line of a sandbox without an application, for what is started beside it: an
// init process that is to execute itself executes nothing. It reaps orphans until a signal ends
// it. The root needs no program for that. The file of the init process can't be executed.
func Hold() []string { return []string{"/proc/self/exe"} }

// Program is the init process of one sandbox, an ELF file: it executes the first of
// the files that is there.
func Program(try []string) []byte {
	var files []byte
	for _, f := range try {
		files = append(append(files, f...), 0)
	}
	return onepage.File(instructions(), append(files, 0))
}
