// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/zone"
	"sandboxctl.dev/launcher/hostfs"
)

// timezone reads the data of a time zone. That of the host is noted: it may have another
// one later.
func (r *reader) timezone(name string) (err error) {
	switch name {
	case "":
		return nil
	case zone.Host:
		if r.read.Timezone, err = zone.OfHost(); err == nil {
			r.read.Inputs = append(r.read.Inputs, actual.Input{File: desired.HostZoneRef, ID: r.read.Timezone.ID()})
		}
	default:
		r.read.Timezone, err = zone.Load(name)
	}
	if err != nil {
		return operation.Precondition(fmt.Errorf("spec.timezone: %w", err))
	}
	return nil
}

// lookAt looks at what a FileRef refers to that is no document.
func lookAt(path string) (id string, err error) {
	if path != desired.HostZoneRef {
		return hostfs.LookAtFile(path)
	}
	z, err := zone.OfHost()
	if err != nil {
		return "", err
	}
	if z.Assumed {
		return "", unix.ENOENT
	}
	return z.ID(), nil
}
