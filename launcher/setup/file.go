// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"sandboxctl.dev/actual"
)

// fileVersion is the version of File that this program writes and reads.
const fileVersion = 1

// File is what is written down of one attempt to build a sandbox.
type File struct {
	Version int `json:"version"`
	// Name, UID and Attempt say whose it is: a file of another attempt describes
	// another sandbox.
	Name    string `json:"name"`
	UID     string `json:"uid"`
	Attempt int64  `json:"attempt"`
	// SentryBinary is the path of the sentry that was started, GVisor its version.
	SentryBinary string `json:"sentryBinary"`
	GVisor       string `json:"gvisor"`
	Setup        *Setup `json:"setup"`
}

// Encode returns what is written down of the set-up of a record's attempt.
func Encode(rec *actual.Record, st *Setup) ([]byte, error) {
	b, err := json.Marshal(&File{
		Version: fileVersion, Name: rec.Name, UID: rec.UID, Attempt: rec.Attempt,
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
	var v struct {
		Version int `json:"version"`
	}
	// First: another version may have other fields.
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, err
	}
	if v.Version != fileVersion {
		return nil, fmt.Errorf("it is of version %d, this program knows %d", v.Version, fileVersion)
	}
	var f File
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows it")
	}
	if f.Name != rec.Name || f.UID != rec.UID || f.Attempt != rec.Attempt {
		return nil, fmt.Errorf("it is of attempt %d of %s (%s), expected attempt %d of %s (%s)", f.Attempt, f.Name, f.UID, rec.Attempt, rec.Name, rec.UID)
	}
	if f.Setup == nil {
		return nil, errors.New("a part of it is missing")
	}
	// As in the record: App relies on it.
	if len(f.Setup.Containers) != 1 || f.Setup.App().Name != actual.AppName {
		return nil, fmt.Errorf("it is of other containers than one named %q", actual.AppName)
	}
	if spec := f.Setup.App().Spec; spec == nil || spec.Process == nil || spec.Root == nil || spec.Linux == nil {
		return nil, errors.New("a part of it is missing")
	}
	return f.Setup, nil
}
