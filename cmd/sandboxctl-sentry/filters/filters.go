// SPDX-License-Identifier: Apache-2.0

// Package filters has the seccomp programs of the sentry, compiled in advance.
// gVisor compiles the program of a sentry when it boots, which took 25 ms of a start,
// unless it has one for the options at hand; those that gVisor's own build makes are
// not in its Go module.
//
// Its rules are gVisor's. TestPrograms compares the programs with what the gVisor in
// go.mod compiles: after an upgrade, `go generate ./cmd/sandboxctl-sentry/filters`.
package filters

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	_ "unsafe" // for linkname

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/runsc/boot/filter"
)

//go:generate sh -c "go run generate.go >programs.new && mv programs.new programs.json"

// programs has a line of JSON for every kind of sentry that the launcher asks for.
//
//go:embed programs.json
var programs []byte

// precompiledPrograms is where gVisor looks for a program, by the options that it is
// for. Without one for its options it compiles.
//
//go:linkname precompiledPrograms gvisor.dev/gvisor/runsc/boot/filter.precompiledPrograms
var precompiledPrograms map[string]precompiledseccomp.Program

// program is a precompiledseccomp.Program as it is stored.
type program struct {
	Name string           `json:"name"`
	Code []byte           `json:"code"` // instructions, little endian
	Vars map[string][]int `json:"vars"`
}

// Use has gVisor take the program for a kind of sentry.
func Use(hostNetwork, rawSockets, directFS bool) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("this is process %d; the programs are for process 1, since gVisor writes the number into them", os.Getpid())
	}
	p, err := find(hostNetwork, rawSockets, directFS)
	if err != nil {
		return err
	}
	filter.GetPrecompiled("") // makes the map
	precompiledPrograms[p.Name] = p
	return nil
}

// find decodes one program: to decode those of all kinds takes a millisecond.
func find(hostNetwork, rawSockets, directFS bool) (precompiledseccomp.Program, error) {
	kind := fmt.Sprintf(" HostNetwork=%t HostNetworkRawSockets=%t HostFilesystem=%t ", hostNetwork, hostNetwork && rawSockets, directFS)
	for line := range bytes.Lines(programs) {
		if bytes.Contains(line, []byte(kind)) {
			return decode(line)
		}
	}
	return precompiledseccomp.Program{}, fmt.Errorf("there is none for%s", kind)
}

func decode(line []byte) (precompiledseccomp.Program, error) {
	var p program
	if err := json.Unmarshal(line, &p); err != nil {
		return precompiledseccomp.Program{}, fmt.Errorf("decode: %w", err)
	}
	code := make([]uint32, len(p.Code)/4)
	if _, err := binary.Decode(p.Code, binary.LittleEndian, code); err != nil {
		return precompiledseccomp.Program{}, fmt.Errorf("decode %s: %w", p.Name, err)
	}
	return precompiledseccomp.Program{Name: p.Name, Bytecode32: code, VarOffsets: p.Vars}, nil
}
