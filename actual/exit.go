// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// ExitFile is the file in a sandbox's directory that its sentry writes when
// the application has ended. It is the sentry's, so its content is hostile.
const ExitFile = "exit.json"

// GoferExitFile is the same of its gofer: written by one that leaves because its
// sentry has ended, and not by one that is killed or crashes.
const GoferExitFile = "gofer-exit.json"

// MaxExit bounds what may be written of either, and what is read, in bytes.
const MaxExit = 4 << 10

// ExitRecord is the content of ExitFile.
type ExitRecord struct {
	// UID and Attempt tell whose it is: a file left by an earlier attempt
	// counts for nothing.
	UID     string `json:"uid"`
	Attempt int64  `json:"attempt"`
	// Container is the name of the container that ended: AppName, or "" of a sentry
	// that an earlier version started, and of a gofer.
	Container string `json:"container,omitempty"`
	// Status is the wait status of the application's init.
	Status uint32    `json:"status"`
	At     time.Time `json:"at"`
	// HostSignaled says that a process of the host had told the sentry to end,
	// by a signal that it passes on to the application. sandboxctl does not do
	// this: it is what a host does that shuts down.
	HostSignaled bool `json:"hostSignaled,omitempty"`
}

// EncodeExit returns the record as one line, to be written in one write.
func EncodeExit(r ExitRecord) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode exit record: %w", err)
	}
	return append(b, '\n'), nil
}

// decodeExit reads the exit record of the container AppName of one attempt. It
// returns nil without an error if there is none: the file is empty, another
// attempt's or another container's.
func decodeExit(b []byte, uid string, attempt int64) (*Exit, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var r ExitRecord
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("decode exit record: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode exit record: more than one")
	}
	if r.UID != uid || r.Attempt != attempt || r.Container != "" && r.Container != AppName {
		return nil, nil
	}
	at := r.At.UTC()
	if at.Year() < 1970 || at.Year() > 9000 {
		// Who wrote it chose it so that a record with it could not be encoded.
		at = time.Time{}
	}
	e := exitOf(unix.WaitStatus(r.Status), at)
	e.HostSignaled = r.HostSignaled
	return e, nil
}

// exitOf describes a wait status as shells and container engines do.
func exitOf(ws unix.WaitStatus, at time.Time) *Exit {
	e := &Exit{Known: true, At: at}
	switch {
	case ws.Signaled():
		e.Signal = int(ws.Signal())
		e.Code = 128 + e.Signal
		e.Reason = ReasonSignaled
		e.Message = "ended by " + signalName(ws.Signal())
	case ws.ExitStatus() == 0:
		e.Reason = ReasonCompleted
	default:
		e.Code = ws.ExitStatus() & 0xff
		e.Reason = ReasonError
		e.Message = fmt.Sprintf("exit code %d", e.Code)
	}
	return e
}

// Killed says whether SIGKILL ended the application.
func (e *Exit) Killed() bool { return e.Signal == int(unix.SIGKILL) }

func signalName(s unix.Signal) string {
	if n := unix.SignalName(s); n != "" {
		return n
	}
	return fmt.Sprintf("signal %d", int(s))
}

// Clean says that the application ended with exit code 0, which is no failure.
func (e *Exit) Clean() bool { return e.Known && e.Code == 0 }

// ReadExit returns the exit record of the attempt of rec, nil if its sentry has
// left none.
func (s *Store) ReadExit(rec *Record) (*Exit, error) { return s.readExit(rec, ExitFile) }

// goferExitedCleanly says whether the gofer of the attempt of rec left by itself.
func (s *Store) goferExitedCleanly(rec *Record) (bool, error) {
	x, err := s.readExit(rec, GoferExitFile)
	return x != nil, err
}

func (s *Store) readExit(rec *Record, file string) (*Exit, error) {
	dir, err := s.dir(rec.Name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	b, err := readRegular(dir, file, MaxExit)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", file, rec.Name, err)
	}
	x, err := decodeExit(b, rec.UID, rec.Attempt)
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", file, rec.Name, err)
	}
	return x, nil
}
