// SPDX-License-Identifier: Apache-2.0

package pidone

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Name is the first argument of the init process, and what ps calls it.
const Name = "sandboxctl-init"

// ReportFD is the descriptor that the init process reports on, and closes.
const ReportFD = 3

// A report is one byte, or of a failure four: failed, the error, and 16 bits for
// the number of the file that could not be executed.
const (
	started = 6
	failed  = 0x15

	noFile  = 0xffff
	noChild = 0xfffe
)

// Failure is why the application was not started.
type Failure struct {
	Errno unix.Errno
	// File is the number of the file that is there and can't be executed, or -1.
	File int
	// NoChild says that there is no process for the application.
	NoChild bool
}

// ReadReport reads a report. ok is false if it is none.
func ReadReport(b []byte) (failure *Failure, ok bool) {
	switch {
	case len(b) == 1 && b[0] == started:
		return nil, true
	case len(b) == 4 && b[0] == failed:
		f := &Failure{Errno: unix.Errno(b[1]), File: -1}
		switch n := binary.LittleEndian.Uint16(b[2:]); n {
		case noFile:
		case noChild:
			f.NoChild = true
		default:
			f.File = int(n)
		}
		return f, true
	}
	return nil, false
}
