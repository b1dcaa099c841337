// SPDX-License-Identifier: Apache-2.0

// Package upgrade makes records that versions before this one wrote into those of this
// version. It knows them as JSON: their types are gone.
package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// RecordVersion is the version of records that this program writes.
const RecordVersion = 5

// AppName is the name of the container that every sandbox has.
const AppName = "app"

// ErrNewer says that a record was written by a later version of this program. It must not
// be acted on or rewritten.
var ErrNewer = errors.New("record of a newer version")

// Record turns the body of an older version into one of RecordVersion. Each
// version adds one pure step here and a golden file of its own.
func Record(body []byte) ([]byte, error) {
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, err
	}
	if v.Version > RecordVersion {
		return nil, fmt.Errorf("%w (%d, this program knows %d)", ErrNewer, v.Version, RecordVersion)
	}
	var fields object
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	if v.Version < 1 || v.Version == RecordVersion {
		return nil, fmt.Errorf("it is no record of version %d", v.Version)
	}
	if v.Version < 4 {
		if err := upgradeTo4(fields); err != nil {
			return nil, err
		}
	}
	// Version 5 has only added fields: those of lifetimes, networks, inputs and the disk.
	fields["version"] = json.RawMessage(strconv.Itoa(RecordVersion))
	return json.Marshal(fields)
}

// object is a JSON object whose fields are not looked at.
type object map[string]json.RawMessage

// upgradeTo4 calls an exit permanent that was terminal, has the version of the sentry
// apart from its path, and gives the sandbox a container, which has what was the
// sandbox's before. Versions 2 and 3 had only added fields.
func upgradeTo4(fields object) error {
	if path, version, ok := strings.Cut(string(fields["sentryBinary"]), " (gVisor "); ok {
		// Both are in quotes, before and after.
		fields["sentryBinary"] = json.RawMessage(path + `"`)
		fields["gvisor"] = json.RawMessage(`"` + strings.Replace(version, ")", "", 1))
	}
	permanent := func(exit object) error { return exit.rename("terminal", "permanent") }
	if err := fields.change("lastExit", permanent); err != nil {
		return err
	}
	err := fields.change("ending", func(ending object) error {
		if err := ending.change("exit", permanent); err != nil {
			return err
		}
		return ending.moveToApp("exit", "failures", "cleanExits", "completed")
	})
	if err != nil {
		return err
	}
	return fields.moveToApp("container", "init", "hooks", "startedAt", "failures", "cleanExits", "restarts", "lastExit", "completed")
}

// change changes the object in a field, if there is one.
func (o object) change(field string, f func(object) error) error {
	if len(o[field]) == 0 {
		return nil
	}
	var below object
	if err := json.Unmarshal(o[field], &below); err != nil || below == nil {
		return err
	}
	if err := f(below); err != nil {
		return err
	}
	b, err := json.Marshal(below)
	o[field] = b
	return err
}

// rename renames a field. A record that has had the new one too is not of its version.
func (o object) rename(from, to string) error {
	v, ok := o[from]
	if !ok {
		return nil
	}
	if _, ok := o[to]; ok {
		return fmt.Errorf("field %q beside %q", to, from)
	}
	o[to] = v
	delete(o, from)
	return nil
}

// moveToApp moves fields into the only element of a new field "containers".
func (o object) moveToApp(fields ...string) error {
	if _, ok := o["containers"]; ok {
		return fmt.Errorf(`field "containers" is of a later version`)
	}
	app := object{"name": json.RawMessage(strconv.Quote(AppName))}
	for _, f := range fields {
		if v, ok := o[f]; ok {
			app[f] = v
			delete(o, f)
		}
	}
	if err := app.rename("container", "oci"); err != nil {
		return err
	}
	b, err := json.Marshal([]object{app})
	o["containers"] = b
	return err
}
