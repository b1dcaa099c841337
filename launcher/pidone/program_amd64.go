// SPDX-License-Identifier: Apache-2.0

package pidone

import (
	"bytes"
	"debug/elf"
	"unsafe"
)

const machine = elf.EM_X86_64

// end follows the text.
var end = []byte("\x0f\x0b\x0f\x0binit-end\x0f\x0b\x0f\x0b")

// text returns where the text of the init process begins.
func text() *byte

// instructions returns the text of the init process.
func instructions() []byte {
	b, _, _ := bytes.Cut(unsafe.Slice(text(), files), end)
	return b
}
