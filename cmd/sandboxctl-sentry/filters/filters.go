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
	_ "embed"
	"fmt"
	_ "unsafe" // for linkname

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/runsc/boot/filter"

	"sandboxctl.dev/gofer/precompiled"
)

//go:generate sh -c "go run generate.go >programs.new && mv programs.new programs.json"

// programs has a line of JSON for every kind of sentry that the launcher asks for, and
// one for the exit record.
//
//go:embed programs.json
var programs []byte

// precompiledPrograms is where gVisor looks for a program, by the options that it is
// for. Without one for its options it compiles.
//
//go:linkname precompiledPrograms gvisor.dev/gvisor/runsc/boot/filter.precompiledPrograms
var precompiledPrograms map[string]precompiledseccomp.Program

// Use has gVisor take the program for a kind of sentry.
func Use(hostNetwork, rawSockets, directFS bool) error {
	filter.GetPrecompiled("") // makes the map
	return precompiled.Use(programs, kind(hostNetwork, rawSockets, directFS), precompiledPrograms)
}

// kind is the part of a name in which kinds of sentries differ.
func kind(hostNetwork, rawSockets, directFS bool) string {
	return fmt.Sprintf(" HostNetwork=%t HostNetworkRawSockets=%t HostFilesystem=%t ", hostNetwork, hostNetwork && rawSockets, directFS)
}
