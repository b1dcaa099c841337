// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"reflect"
	"strings"
	"sync"

	"sandboxctl.dev/desired/fieldwords"
	"sandboxctl.dev/desired/lifetime"
	"sandboxctl.dev/desired/networks"
)

// plannedFields are the fields that a later version will have, by the type they
// will belong to, with what serves until then, if anything does.
var plannedFields = map[reflect.Type]map[string]string{
	reflect.TypeFor[Spec](): {
		"probes": "", "dependsOn": "",
	},
	reflect.TypeFor[FileSet](): {"directory": "use files, or hostPath"},
}

// foreignFields are what Compose and Kubernetes call something that has another name
// here, by the type it would belong to.
var foreignFields = sync.OnceValue(func() map[reflect.Type]map[string]string {
	return map[reflect.Type]map[string]string{
		reflect.TypeFor[Resources]():  {"limits": "cpu, memory and pids here", "requests": "cpu, memory and pids here, which are limits"},
		reflect.TypeFor[Tmpfs]():      {"sizeLimit": "size"},
		reflect.TypeFor[EmptyDir]():   {"sizeLimit": "size"},
		reflect.TypeFor[EnvFrom]():    {"secretRef": "secret: {name: NAME}", "configMapRef": "config: {name: NAME}"},
		reflect.TypeFor[EnvSource]():  {"secretKeyRef": "secret: {name: NAME, key: KEY}", "configMapKeyRef": "config: {name: NAME, key: KEY}", "fieldRef": "field: metadata.name"},
		reflect.TypeFor[Volume]():     {"configMap": "config", "persistentVolumeClaim": "volume: {name: data}"},
		reflect.TypeFor[FileSet]():    {"secretName": "name", "defaultMode": `mode, such as "0400"`, "binaryData": "name, of a Config document, which may have it"},
		reflect.TypeFor[Config]():     {"immutable": "onChange: ignore where sandboxes refer to it", "stringData": "data", "spec": "data"},
		reflect.TypeFor[VolumeSpec](): {"resources": "size: 10Gi", "capacity": "size: 10Gi", "persistentVolumeReclaimPolicy": "reclaim: Retain", "accessModes": "readOnly and shared where sandboxes refer to it"},
		reflect.TypeFor[ClaimSpec]():  {"activeDeadline": "ttl: 1h", "lifetime": "ttl: 1h", "sandboxTemplateRef": "pool: NAME", "template": "pool: NAME of a SandboxPool, which has it"},
		reflect.TypeFor[PoolSpec]():   {"replicas": "size: 2", "sandboxTemplateRef": "template: {root: {host: {}}, command: [sleep, \"1\"]}"},
		reflect.TypeFor[Secret]():     {"immutable": "onChange: ignore where sandboxes refer to it", "binaryData": "data", "spec": "stringData"},
	}
})

// sandboxNames are more of them for the spec, of packages that have a part of it.
var sandboxNames = sync.OnceValue(func() map[string]string {
	return joined(fieldwords.Foreign(), joined(networks.OfSandbox, lifetime.Foreign))
})

// foreignPlanned are what Compose and Kubernetes call a planned field of the spec, with
// its type and name here.
var foreignPlanned = map[string]struct {
	typ  reflect.Type
	name string
}{
	"livenessProbe": {reflect.TypeFor[Spec](), "probes"}, "readinessProbe": {reflect.TypeFor[Spec](), "probes"}, "startupProbe": {reflect.TypeFor[Spec](), "probes"},
	"healthcheck": {reflect.TypeFor[Spec](), "probes"}, "depends_on": {reflect.TypeFor[Spec](), "dependsOn"},
}

// unknownField is the error for a key that no type of this version has, and that
// means something all the same.
func unknownField(t reflect.Type, key, path, parent string) (string, bool) {
	if parent == "" && key == "status" {
		return "status is not for a manifest: it is what sandboxctl reports (see `sandboxctl get`); remove it", true
	}
	ours, ok := foreignFields()[t][key]
	if !ok {
		ours, ok = networks.Foreign[t][key]
	}
	if !ok && t == reflect.TypeFor[Spec]() {
		ours, ok = sandboxNames()[key]
	}
	if ok {
		return key + " has another name here; use " + ours, true
	}
	if other, found := foreignPlanned[key]; found && t == reflect.TypeFor[Spec]() {
		t, key, path = other.typ, other.name, other.name
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
