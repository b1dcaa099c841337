// SPDX-License-Identifier: Apache-2.0

// Package protocol is what a client and the daemon say to each other on the socket of clients.
// Programs use the package client; this one promises nothing to them.
//
// A connection is one request. The client sends a line of JSON, and keeps its side of the
// connection open for as long as it wants the answer: its end, or any more bytes, ends the
// request. The daemon answers with lines of JSON, and closes the connection when everything is
// done that the request has made necessary, as the removal of a sandbox.
//
// Streams of a command are pipes that the daemon makes. The descriptors of the client's ends come
// with the answer that says that the command has started. No descriptor of a client is taken.
package protocol

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Version is that of the protocol. A daemon refuses others.
const Version = 1

// DefaultSocket is where the daemon of a host listens.
const DefaultSocket = "/run/sandboxctl/client.sock"

// Bounds of a line. A request is kept in the memory of the daemon.
const (
	MaxRequest  = 512 << 10
	MaxResponse = 16 << 20
)

// Operations.
const (
	OpHello  = "hello" // is the daemon there, and may I ask it
	OpRun    = "run"
	OpExec   = "exec"
	OpList   = "list"
	OpRemove = "remove"
)

// Request is what a client asks for.
type Request struct {
	Version int    `json:"version"`
	Op      string `json:"op"`
	// Name is that of the sandbox; of OpRun "" for one that nobody has.
	Name string `json:"name,omitempty"`
	// Sandbox is the one that OpRun makes.
	Sandbox *Sandbox `json:"sandbox,omitempty"`
	// Command is that of OpRun and OpExec.
	Command *Command `json:"command,omitempty"`
	// Timeout bounds OpRun, the start included, and OpExec; 0 is none.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Sandbox is a sandbox that is made for one command. Paths are absolute.
type Sandbox struct {
	Image   string            `json:"image,omitempty"`
	RootDir string            `json:"rootDir,omitempty"`
	Memory  string            `json:"memory,omitempty"`
	CPU     string            `json:"cpu,omitempty"`
	Volumes []string          `json:"volumes,omitempty"`
	Network string            `json:"network,omitempty"`
	Egress  []string          `json:"egress,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// Command is what is executed.
type Command struct {
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	// Input says that the command gets a pipe as its standard input.
	Input bool `json:"input,omitempty"`
	// Merged says that both outputs are one pipe.
	Merged bool `json:"merged,omitempty"`
}

// Response is one line of an answer.
type Response struct {
	// Started says that the command runs. With it come the client's ends of its pipes: standard
	// output, standard error unless both are merged, and the input, if there is one.
	Started bool `json:"started,omitempty"`
	// Exit is the exit code of the command.
	Exit *int `json:"exit,omitempty"`
	// Done says that a request without a command was carried out.
	Done bool `json:"done,omitempty"`
	// Sandboxes are those that the client may know of.
	Sandboxes []Status `json:"sandboxes,omitempty"`
	Error     *Error   `json:"error,omitempty"`
}

// Status is what a client may know of a sandbox.
type Status struct {
	Name    string            `json:"name"`
	Phase   string            `json:"phase"`
	Message string            `json:"message,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// Kinds of errors.
const (
	KindDenied      = "denied"      // who asks may not use the socket
	KindRefused     = "refused"     // what is asked for is not allowed, or wrong
	KindBusy        = "busy"        // too many requests are under way
	KindNotFound    = "notFound"    // there is no such sandbox
	KindStart       = "start"       // the sandbox can't be started
	KindCommand     = "command"     // the command can't be executed, or is not there
	KindTimeout     = "timeout"     // the time is over
	KindOutOfMemory = "outOfMemory" // the sandbox has used more than its memory
	KindEnded       = "ended"       // the sandbox ended under the command
	KindStopping    = "stopping"    // the daemon ends
	KindFailed      = "failed"      // anything else
)

// Error is why a request was not carried out.
type Error struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Failf is an error of a kind.
func Failf(kind, format string, args ...any) error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// ErrTooLong says that a line is longer than it may be.
var ErrTooLong = errors.New("the message is too long")

// Encode is a message as a line.
func Encode(message any) ([]byte, error) {
	b, err := json.Marshal(message)
	return append(b, '\n'), err
}

// ReadLine reads one line of at most so many bytes. Memory is taken as bytes come.
func ReadLine(r io.Reader, most int) ([]byte, error) {
	line, err := bufio.NewReaderSize(io.LimitReader(r, int64(most)), 4<<10).ReadBytes('\n')
	switch {
	case err == nil:
		return line, nil
	case len(line) == most:
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLong, most)
	case errors.Is(err, io.EOF) && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	}
	return nil, err
}

// DecodeRequest reads a request, which must have no field that this program does not know: it
// would not be honoured.
func DecodeRequest(line []byte) (*Request, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	r := new(Request)
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("expected a request: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("expected one request in a line")
	}
	if r.Version != Version {
		return nil, fmt.Errorf("the client speaks version %d of the protocol, and this daemon version %d", r.Version, Version)
	}
	return r, nil
}
