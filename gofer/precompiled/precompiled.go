// SPDX-License-Identifier: Apache-2.0

// Package precompiled reads and writes seccomp programs that were compiled in advance,
// one per line. It decides nothing: what they forbid is gVisor's rules.
package precompiled

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
)

// program is a precompiledseccomp.Program as it is stored.
type program struct {
	Name string           `json:"name"`
	Code []byte           `json:"code"` // instructions, little endian
	Vars map[string][]int `json:"vars"`
}

// Write writes a program.
func Write(w io.Writer, p precompiledseccomp.Program) error {
	code, err := binary.Append(nil, binary.LittleEndian, p.Bytecode32)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(program{p.Name, code, p.VarOffsets})
}

// Use has gVisor take the first program in whose name a text is: into is where it looks
// for one.
func Use(programs []byte, text string, into map[string]precompiledseccomp.Program) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("this is process %d; the programs are for process 1, since gVisor writes the number into them", os.Getpid())
	}
	p, err := Find(programs, text)
	if err != nil {
		return err
	}
	into[p.Name] = p
	return nil
}

// Find reads the first program in whose name a text is. The others are not decoded,
// which would take a millisecond.
func Find(programs []byte, text string) (precompiledseccomp.Program, error) {
	for line := range bytes.Lines(programs) {
		if bytes.Contains(line, []byte(text)) {
			return decode(line)
		}
	}
	return precompiledseccomp.Program{}, fmt.Errorf("there is none for %s", text)
}

func decode(line []byte) (precompiledseccomp.Program, error) {
	var p program
	if err := json.Unmarshal(line, &p); err != nil {
		return precompiledseccomp.Program{}, fmt.Errorf("decode: %w", err)
	}
	if len(p.Code) == 0 || len(p.Code)%8 != 0 {
		return precompiledseccomp.Program{}, fmt.Errorf("decode %s: %d bytes are no instructions", p.Name, len(p.Code))
	}
	code := make([]uint32, len(p.Code)/4)
	if _, err := binary.Decode(p.Code, binary.LittleEndian, code); err != nil {
		return precompiledseccomp.Program{}, fmt.Errorf("decode %s: %w", p.Name, err)
	}
	return precompiledseccomp.Program{Name: p.Name, Bytecode32: code, VarOffsets: p.Vars}, nil
}
