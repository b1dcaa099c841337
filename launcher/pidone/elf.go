// SPDX-License-Identifier: Apache-2.0

package pidone

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// Where the program is in memory. It is at the same place in every sandbox: it
// reads nothing that others choose.
const (
	page  = 4096
	start = 0x400000
	// files is where the files to try begin.
	files = 2048
)

// Available says whether there is an init process for this processor.
func Available() bool { return instructions() != nil }

// Program is the init process of one sandbox, an ELF file: it executes the first of
// the files that is there.
func Program(try []string) []byte {
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phnum: 2,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	segments := []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: start, Paddr: start, Align: page},
		{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W)}, // not executable
	}
	header.Ehsize, header.Phentsize = uint16(binary.Size(header)), uint16(binary.Size(segments[0]))
	header.Phoff = uint64(header.Ehsize)
	begin := binary.Size(header) + binary.Size(segments)
	header.Entry = start + uint64(begin)

	tail := make([]byte, files-begin)
	copy(tail, instructions())
	for _, f := range try {
		tail = append(append(tail, f...), 0)
	}
	tail = append(tail, 0)
	tail = append(tail, make([]byte, -(begin+len(tail))&(page-1))...)
	size := uint64(begin + len(tail))
	segments[0].Filesz, segments[0].Memsz = size, size

	var b bytes.Buffer
	for _, part := range []any{header, segments, tail} {
		// A buffer takes everything, and all of it has a fixed size.
		_ = binary.Write(&b, binary.LittleEndian, part)
	}
	return b.Bytes()
}
