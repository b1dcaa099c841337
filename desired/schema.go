// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"maps"
	"reflect"
	"sync"

	"sandboxctl.dev/desired/fieldwords"
	"sandboxctl.dev/desired/fromsnapshot"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

// manifestSchema is what there is to say about the types of manifests.
var manifestSchema = SchemaOf(func() yamldoc.Schema { return yamldoc.Schema{Type: reflect.TypeFor[Sandbox]()} })

// SchemaOf completes the schema of another kind of document, which may have types
// of manifests in it. It is made when there is a document to compare with it: all of them
// together are a part of what a start of this program takes, and most starts read none.
func SchemaOf(own func() yamldoc.Schema) func() *yamldoc.Schema {
	return sync.OnceValue(func() *yamldoc.Schema {
		s := own()
		s.Required, s.Examples = joined(required(), s.Required), joined(examples(), s.Examples)
		s.ListExamples = joined(listExamples(), s.ListExamples)
		s.Unknown, s.Instead = unknownField, networks.Instead
		return &s
	})
}

func joined[K comparable, V any](a, b map[K]V) map[K]V {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// required are the fields a manifest can't do without. What else is missing is
// found by Validate.
var required = sync.OnceValue(func() map[reflect.Type]map[string]string {
	return joined(joined(networks.Required, fromsnapshot.Required), map[reflect.Type]map[string]string{
		reflect.TypeFor[Sandbox]():     {"apiVersion": APIVersion, "kind": Kind, "metadata": "an object with a name", "spec": "an object with a root"},
		reflect.TypeFor[Metadata]():    {"name": "a DNS label such as \"web\""},
		reflect.TypeFor[Spec]():        {"root": "one of host, dir, bundle, image"},
		reflect.TypeFor[Volume]():      {"mountPath": "an absolute path in the sandbox"},
		reflect.TypeFor[NamedVolume](): {"name": "a DNS label such as \"data\""},
		reflect.TypeFor[EnvVar]():      {"name": "the name of an environment variable"},
		reflect.TypeFor[Rlimit]():      {"type": "a limit such as NOFILE", "soft": "a number", "hard": "a number"},
		reflect.TypeFor[ImageRoot]():   {"ref": "an image such as \"docker.io/library/nginx:1.27\""},
		reflect.TypeFor[ObjectName]():  {"name": "the name of a document"},
		reflect.TypeFor[KeyRef]():      {"name": "the name of a document", "key": "a key of it"},
		reflect.TypeFor[KeyItem]():     {"key": "a key of the document", "path": "the name of a file in the volume"},
	})
})

// examples show authors what an object or a list looks like. Each is a valid
// value of its type.
var examples = sync.OnceValue(func() map[reflect.Type]string {
	return joined(joined(networks.Examples, fromsnapshot.Examples), map[reflect.Type]string{
		reflect.TypeFor[Metadata]():       `{name: web}`,
		reflect.TypeFor[Spec]():           `{root: {host: {}}, command: [sleep, "1"]}`,
		reflect.TypeFor[Root]():           `{host: {}}`,
		reflect.TypeFor[HostRoot]():       `{}`,
		reflect.TypeFor[ImageRoot]():      `{ref: "docker.io/library/nginx:1.27"}`,
		reflect.TypeFor[EnvVar]():         `{name: KEY, value: text}`,
		reflect.TypeFor[EnvSource]():      `{field: metadata.name}`,
		reflect.TypeFor[Config]():         `{data: {LEVEL: info}}`,
		reflect.TypeFor[Secret]():         `{stringData: {TOKEN: text}}`,
		reflect.TypeFor[ObjectName]():     `{name: web}`,
		reflect.TypeFor[KeyRef]():         `{name: web, key: TOKEN}`,
		reflect.TypeFor[KeyItem]():        `{key: app.conf, path: app.conf}`,
		reflect.TypeFor[EnvFrom]():        `{file: /srv/sandboxctl/app.env}`,
		reflect.TypeFor[User]():           `{uid: 1000, gid: 1000}`,
		reflect.TypeFor[Capabilities]():   `{add: [NET_ADMIN], drop: [ALL]}`,
		reflect.TypeFor[Rlimit]():         `{type: NOFILE, soft: 1024, hard: 4096}`,
		reflect.TypeFor[Volume]():         `{name: data, mountPath: /data, hostPath: /srv/sandboxctl/data}`,
		reflect.TypeFor[NamedVolume]():    `{name: data}`,
		reflect.TypeFor[Ownership]():      `{uid: 999, gid: 999}`,
		reflect.TypeFor[FreshOwnership](): `{uid: 999, gid: 999}`,
		reflect.TypeFor[VolumeDocument](): `{spec: {size: 10Gi}}`,
		reflect.TypeFor[VolumeSpec]():     `{size: 10Gi}`,
		reflect.TypeFor[PoolSpec]():       `{template: {root: {host: {}}, command: [sleep, "1"]}, size: 2}`,
		reflect.TypeFor[ClaimSpec]():      `{pool: python}`,
		reflect.TypeFor[EmptyDir]():       `{size: 1Gi}`,
		reflect.TypeFor[Tmpfs]():          `{size: 64Mi}`,
		reflect.TypeFor[FileSet]():        `{files: {token: /srv/sandboxctl/token}}`,
		reflect.TypeFor[IDMappings]():     `{uids: [{containerID: 0, hostID: 100000, size: 65536}], gids: [{containerID: 0, hostID: 100000, size: 65536}]}`,
		reflect.TypeFor[IDMapping]():      `{containerID: 0, hostID: 100000, size: 65536}`,
		reflect.TypeFor[Resources]():      `{cpu: 500m, memory: 256Mi, pids: 128}`,
		reflect.TypeFor[Backoff]():        `{initial: 1s, max: 5m}`,
		reflect.TypeFor[scalar.Time]():    `2026-12-01T00:00:00Z`,
	})
})

// listExamples are those of lists and maps of plain values, and of paths, by field.
var listExamples = sync.OnceValue(func() map[string]string {
	return joined(joined(networks.ListExamples, fromsnapshot.ListExamples), fieldwords.Lists())
})
