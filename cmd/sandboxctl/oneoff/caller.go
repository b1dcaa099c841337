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

// annotation is what is in Annotation. It names the sandbox: a copy of the manifest under another
// name is for nobody, and stays when the caller ends.
type annotation struct {
	Sandbox string `json:"sandbox"`
	process.Identity
	// Client is whom the caller, a daemon, asks for.
	Client *Client `json:"client,omitempty"`
}

// Client is a process that has asked a daemon for a sandbox. It is for people: what becomes of the
// sandbox is a matter of the daemon that is the caller.
type Client struct {
	PID int    `json:"pid"`
	UID uint32 `json:"uid"`
}

// Annotate is the value of Annotation for a sandbox and its caller.
func Annotate(name string, caller process.Identity) (string, error) {
	b, err := json.Marshal(annotation{Sandbox: name, Identity: caller})
	return string(b), err
}

// Caller is the process that a sandbox is for, nil if it is for none. Only a manifest in a file
// of its own counts: no file that defines other things is ever changed.
func Caller(e *desired.Entry) *process.Identity {
	if a := annotationOf(e); a != nil {
		return &a.Identity
	}
	return nil
}

func annotationOf(e *desired.Entry) *annotation {
	name := e.Sandbox.Metadata.Name
	text := e.Sandbox.Metadata.Annotations[Annotation]
	if text == "" || e.Source.File != desired.OwnFile(name) {
		return nil
	}
	var a annotation
	// A part of an identity would be that of nobody, and its sandbox be removed.
	if err := json.Unmarshal([]byte(text), &a); err != nil || a.Sandbox != name || a.PID <= 1 || a.BootID == "" || a.StartTime == 0 {
		return nil
	}
	return &a
}

// For says whether a sandbox is for this process, and for no other. Of a nil entry nothing is known.
func For(e *desired.Entry, caller process.Identity) bool {
	if e == nil {
		return false
	}
	id := Caller(e)
	return id != nil && *id == caller
}

// ClientOf is whom a daemon has made a sandbox for, nil if it was not made by this one.
func ClientOf(e *desired.Entry, daemon process.Identity) *Client {
	if !For(e, daemon) {
		return nil
	}
	return annotationOf(e).Client
}

// Text says whom a sandbox is for, "" if it is for itself.
func Text(e *desired.Entry) string {
	if e == nil {
		return ""
	}
	a := annotationOf(e)
	switch {
	case a == nil:
		return ""
	case a.Client != nil:
		return fmt.Sprintf("a command of a client (process %d of user %d, by the daemon with process %d); removed when that has ended, or either process", a.Client.PID, a.Client.UID, a.PID)
	}
	id := a.Identity
	return fmt.Sprintf("a command of process %d (`sandboxctl run`); removed when that has ended", id.PID)
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
