// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"encoding/json"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/wire"
)

// fileVersion is the version of File that this program writes and reads.
const fileVersion = 1

// File is what is written down of one attempt to build a sandbox.
type File struct {
	owner
	// SentryBinary is the path of the sentry that was started, GVisor its version.
	SentryBinary string `json:"sentryBinary"`
	GVisor       string `json:"gvisor"`
	Setup        *Setup `json:"setup"`
}

// owner says whose a File is: one of another attempt describes another sandbox.
type owner struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	UID     string `json:"uid"`
	Attempt int64  `json:"attempt"`
}

// check refuses a file that is not of a record's attempt.
func (o *owner) check(rec *actual.Record) error {
	if o.Name != rec.Name || o.UID != rec.UID || o.Attempt != rec.Attempt {
		return fmt.Errorf("it is of attempt %d of %s (%s), expected attempt %d of %s (%s)", o.Attempt, o.Name, o.UID, rec.Attempt, rec.Name, rec.UID)
	}
	return nil
}

func (o *owner) checkVersion() error {
	if o.Version != fileVersion {
		return fmt.Errorf("it is of version %d, this program knows %d", o.Version, fileVersion)
	}
	return nil
}

var (
	errMissing = errors.New("a part of it is missing")
	// As in the record: App relies on it.
	errContainers = fmt.Errorf("it is of other containers than one named %q", actual.AppName)
)

// Encode returns what is written down of the set-up of a record's attempt.
func Encode(rec *actual.Record, st *Setup) ([]byte, error) {
	b, err := json.Marshal(&File{
		owner:        owner{Version: fileVersion, Name: rec.Name, UID: rec.UID, Attempt: rec.Attempt},
		SentryBinary: rec.SentryBinary, GVisor: rec.GVisor, Setup: st,
	})
	if err != nil {
		return nil, fmt.Errorf("encode set-up: %w", err)
	}
	return b, nil
}

// Decode returns the set-up of a record's attempt.
func Decode(rec *actual.Record, b []byte) (*Setup, error) {
	st, err := decode(rec, b)
	if err != nil {
		return nil, fmt.Errorf("decode set-up: %w", err)
	}
	return st, nil
}

func decode(rec *actual.Record, b []byte) (*Setup, error) {
	var v owner
	// First: another version may have other fields.
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, err
	}
	if err := v.checkVersion(); err != nil {
		return nil, err
	}
	var f File
	if err := decodeStrictly(b, &f); err != nil {
		return nil, err
	}
	if err := f.check(rec); err != nil {
		return nil, err
	}
	if f.Setup == nil {
		return nil, errMissing
	}
	if len(f.Setup.Containers) != 1 || f.Setup.App().Name != actual.AppName {
		return nil, errContainers
	}
	if spec := f.Setup.App().Spec; spec == nil || spec.Process == nil || spec.Root == nil || spec.Linux == nil {
		return nil, errMissing
	}
	return f.Setup, nil
}

// execFile is what a command needs of a File. To decode all of a specs.Spec, Go looks at
// every type that it is made of first, which takes a third of the time of a command.
type execFile struct {
	owner
	Setup *struct {
		Containers []struct {
			Name string `json:"name"`
			Spec *struct {
				Process *specs.Process `json:"process"`
			} `json:"spec"`
			PrivateEnv bool `json:"privateEnv"`
		} `json:"containers"`
		RawSockets bool `json:"rawSockets"`
	} `json:"setup"`
}

// DecodeExec returns how a command is started by default in the sandbox of a record's
// attempt: as the application was. private says that its environment is not all of it.
func DecodeExec(rec *actual.Record, b []byte, argv []string) (args wire.ExecArgs, private bool, err error) {
	var f execFile
	if err = json.Unmarshal(b, &f); err == nil {
		err = f.checkVersion()
	}
	if err == nil {
		err = f.check(rec)
	}
	switch {
	case err != nil:
	case f.Setup == nil:
		err = errMissing
	case len(f.Setup.Containers) != 1 || f.Setup.Containers[0].Name != actual.AppName:
		err = errContainers
	case f.Setup.Containers[0].Spec == nil || f.Setup.Containers[0].Spec.Process == nil:
		err = errMissing
	}
	if err != nil {
		return args, false, fmt.Errorf("decode set-up: %w", err)
	}
	p := f.Setup.Containers[0].Spec.Process
	p.Args = argv
	return (&Setup{RawSockets: f.Setup.RawSockets}).Exec(p), f.Setup.Containers[0].PrivateEnv, nil
}
