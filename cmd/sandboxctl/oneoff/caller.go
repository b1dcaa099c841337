// SPDX-License-Identifier: Apache-2.0

package oneoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
)

// Annotation is where a manifest names the process that the sandbox is for. The daemon removes
// the sandbox and its manifest when that process is gone, however it has ended.
const Annotation = "sandboxctl.dev/caller"

// self is this process.
func self() (process.Identity, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return process.Identity{}, fmt.Errorf("identify this process: %w", err)
	}
	defer unix.Close(fd)
	return process.Identify(fd, os.Getpid())
}

// Caller is the process that a sandbox is for, nil if it is for none. Only a manifest in a file
// of its own counts: no file that defines other things is ever changed.
func Caller(e *desired.Entry) *process.Identity {
	text := e.Sandbox.Metadata.Annotations[Annotation]
	if text == "" || e.Source.File != desired.OwnFile(e.Sandbox.Metadata.Name) {
		return nil
	}
	id := new(process.Identity)
	// A part of an identity would be that of nobody, and its sandbox be removed.
	if err := json.Unmarshal([]byte(text), id); err != nil || id.PID <= 1 || id.BootID == "" || id.StartTime == 0 {
		return nil
	}
	return id
}

// Gone says whether a process is proven to have ended. One of which nothing is known is not gone.
func Gone(id process.Identity) bool {
	p, err := process.Open(id)
	if err != nil {
		return errors.Is(err, process.ErrGone)
	}
	defer p.Close()
	return p.Alive() == process.Dead
}
