// SPDX-License-Identifier: Apache-2.0

// Package onepage makes ELF files of machine code that Go's assembler has
// produced: programs that start in microseconds, because they have no runtime and
// nothing to link. Their code must not refer to anything but itself and its data.
package onepage

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
	"unsafe"
)

const (
	// Start is where a program is in memory. It is the same in every process: these
	// programs read nothing that an attacker chooses.
	Start = 0x400000
	// Data is the distance from Start to the data of a program.
	Data = 2048

	page = 4096
)

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// end is the mark behind the code, which the assembler source spells out.
var end = []byte("\x0f\x0b\x0f\x0binit-end\x0f\x0b\x0f\x0b")

// Text returns the code that begins at p and ends before the mark.
func Text(p *byte) []byte {
	b, _, _ := bytes.Cut(unsafe.Slice(p, Data), end)
	return b
}

// File returns a program as an ELF file. It can be read and executed, but not
// written, where the kernel maps it.
func File(text, data []byte) []byte {
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machines[runtime.GOARCH]), Version: uint32(elf.EV_CURRENT),
		Phnum: 2,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	segments := []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: Start, Paddr: Start, Align: page},
		{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W)}, // not executable
	}
	header.Ehsize, header.Phentsize = uint16(binary.Size(header)), uint16(binary.Size(segments[0]))
	header.Phoff = uint64(header.Ehsize)
	begin := binary.Size(header) + binary.Size(segments)
	header.Entry = Start + uint64(begin)

	tail := make([]byte, Data-begin)
	copy(tail, text)
	tail = append(tail, data...)
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
