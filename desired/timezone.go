// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"

	"sandboxctl.dev/desired/ownnotes"
	"sandboxctl.dev/desired/yamldoc"
	"sandboxctl.dev/desired/zone"
)

// HostZoneRef is the path of a FileRef to the time zone of the host. No path of a file
// looks like it.
const HostZoneRef = "timezone of the host"

// zoneFiles are the files of a sandbox that say which time zone it has.
var zoneFiles = []string{"/etc/localtime", "/etc/timezone"}

func (v *Validator) timezone(s *Spec) {
	if s.Timezone == "" || v.Full() {
		return
	}
	if err := zone.CheckName(s.Timezone); err != nil {
		v.Add("spec.timezone", "%v", err)
	}
	if s.Overlay == OverlayNone && (s.Root.Dir != "" || s.Root.Bundle != "") {
		v.Add("spec.timezone", "is not possible with overlay none: /etc/localtime of the root would be changed on the host; use overlay memory, or env with TZ")
	}
	for i := range s.Env {
		if s.Env[i].Name == "TZ" {
			v.Add(fmt.Sprintf("spec.env[%d].name", i), "TZ is set by timezone, which is %s; remove one of them", s.Timezone)
		}
	}
	for i := range s.Volumes {
		for _, f := range zoneFiles {
			if s.Volumes[i].MountPath == f {
				v.Add(fmt.Sprintf("spec.volumes[%d].mountPath", i), "%s is made by timezone, which is %s; remove one of them", f, s.Timezone)
			}
		}
	}
}

// Lacks returns what a manifest names that this host does not have, or that only a record has. It
// is no part of Validate: the manifest of a sandbox that runs is read from its record by that, and
// stays what it was started by when an update of the host takes a zone away.
func Lacks(s *Sandbox) []FieldError {
	v := &Validator{}
	if tz := s.Spec.Timezone; tz != "" && zone.CheckName(tz) == nil {
		if err := zone.Check(tz); err != nil {
			v.Add("spec.timezone", "%v", err)
		}
	}
	for _, name := range ownnotes.Among(s.Metadata.Annotations) {
		v.Add(yamldoc.Join("metadata.annotations", name), "is what sandboxctl says of the sandbox of a claim; remove it")
	}
	return v.Errors()
}
