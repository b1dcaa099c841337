// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"reflect"
	"slices"
	"strings"
)

// planned are the values of enumerations that a later version will take. They
// are told from misspelt ones, and never offered.
var planned = map[string][]string{
	"spec.overlay":      {"disk"},
	"spec.platform":     {"kvm", "ptrace"},
	"spec.network.mode": {"bridge"},
}

// IsPlanned says whether a later version will take a value of an enumeration.
func IsPlanned(field, value string) bool { return slices.Contains(planned[field], value) }

// plannedFields are the fields that a later version will have, by the type they
// will belong to, with what serves until then, if anything does.
var plannedFields = map[reflect.Type]map[string]string{
	reflect.TypeFor[Spec](): {
		"probes": "", "dependsOn": "", "ttlAfterFinished": "",
	},
	reflect.TypeFor[Root]():    {"image": "unpack the image into a directory and name it in root.dir"},
	reflect.TypeFor[Network](): {"ports": "use mode netns, or mode host", "dns": "mode netns takes /etc/netns/NAME/resolv.conf"},
	reflect.TypeFor[EnvVar]():  {"valueFrom": "use value"},
	reflect.TypeFor[Volume]():  {"config": "use hostPath", "secret": "use hostPath"},
}

// unknownField is the error for a key that no type of this version has, and that
// means something all the same.
func unknownField(t reflect.Type, key, path, parent string) (string, bool) {
	if parent == "" && key == "status" {
		return "status is not for a manifest: it is what sandboxctl reports (see `sandboxctl get`); remove it", true
	}
	instead, ok := plannedFields[t][key]
	if !ok {
		return "", false
	}
	msg := strings.TrimPrefix(path, "spec.") + " is not supported yet"
	if instead != "" {
		msg += "; " + instead
	}
	return msg, true
}
