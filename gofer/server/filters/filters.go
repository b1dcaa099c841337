// SPDX-License-Identifier: Apache-2.0

// Package filters has the seccomp programs of the gofer, compiled in advance as those
// of the sentry are (cmd/sandboxctl-sentry/filters). After an upgrade of gVisor,
// `go generate ./gofer/server/filters`.
package filters

import (
	_ "embed"
	"fmt"
	_ "unsafe" // for linkname

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/runsc/fsgofer/filter"

	"sandboxctl.dev/gofer/precompiled"
)

//go:generate sh -c "go run generate.go >programs.new && mv programs.new programs.json"

//go:embed programs.json
var programs []byte

// precompiledPrograms is where gVisor looks for a program, by the options that it is
// for. Without one for its options it compiles.
//
//go:linkname precompiledPrograms gvisor.dev/gvisor/runsc/fsgofer/filter.precompiledPrograms
var precompiledPrograms map[string]precompiledseccomp.Program

// Use has gVisor take the program for the options.
func Use(opt filter.Options) error {
	filter.GetPrecompiled("") // makes the map
	return precompiled.Use(programs, kind(opt), precompiledPrograms)
}

// kind is the part of a name in which kinds of gofers differ.
func kind(opt filter.Options) string {
	return fmt.Sprintf(" DirectFS=%t LisafsNeeded=%t ", opt.DirectFS, opt.LisafsNeeded)
}
