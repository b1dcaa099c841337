// SPDX-License-Identifier: Apache-2.0

// Package pause is the first container of a sandbox whose application is a second one: a
// program that does nothing, and a root of three blocks that has nothing else. A sentry can
// boot a kernel with it before there is an application.
package pause

import (
	"bytes"
	_ "embed" // of the root
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/onepage"
	"sandboxctl.dev/launcher/proc"
)

// path is where the program is in its root.
const path = "/pause"

// What gVisor is told of the root: an image that is written to by nobody, and one with room
// for mount points.
const (
	MountConf    = "erofs:none"
	HotMountConf = "erofs:memory"
)

// text returns where the text of the program begins.
func text() *byte

// Program is an ELF file. It waits until it is killed, and lets no other signal end it: those
// that are sent to a sentry are for the application. With an argument it ends at once.
func Program() []byte { return onepage.File(onepage.Text(text()), nil) }

// empty is the root with a program of zeros, which is in its second block. It is that of every
// processor: EROFS has no checksum of content.
//
//go:embed root.erofs
var empty []byte

// image is the root.
func image() []byte {
	b := bytes.Clone(empty)
	copy(b[block:], Program())
	return b
}

// block is the size of a block, which the program is not longer than.
const block = 4096

// Image returns the root as a file that nobody can write to, open for reading only.
func Image() (*os.File, error) {
	f, err := proc.MemFile("pause", image())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	readOnly, err := os.OpenFile(proc.FDPath(f), os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	return readOnly, nil
}

// Spec is what the container is started from. With ends the program ends at once. Commands of
// the sandbox have the limits of this container, not those of the application.
func Spec(rlimits []specs.POSIXRlimit, ends bool) *specs.Spec {
	args := []string{path}
	if ends {
		args = append(args, "end")
	}
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "/", Readonly: true},
		Process: &specs.Process{Args: args, Cwd: "/", Capabilities: &specs.LinuxCapabilities{}, NoNewPrivileges: true, Rlimits: rlimits},
		Linux:   &specs.Linux{},
	}
}
