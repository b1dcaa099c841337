// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"reflect"
	"strings"
)

// examples show authors what an object or a list looks like. Each is a valid
// value of its type.
var examples = map[reflect.Type]string{
	reflect.TypeFor[Metadata]():     `{name: web}`,
	reflect.TypeFor[Spec]():         `{root: {host: {}}, command: [sleep, "1"]}`,
	reflect.TypeFor[Root]():         `{host: {}}`,
	reflect.TypeFor[HostRoot]():     `{}`,
	reflect.TypeFor[EnvVar]():       `{name: KEY, value: text}`,
	reflect.TypeFor[User]():         `{uid: 1000, gid: 1000}`,
	reflect.TypeFor[Capabilities](): `{add: [NET_ADMIN], drop: [ALL]}`,
	reflect.TypeFor[Rlimit]():       `{type: NOFILE, soft: 1024, hard: 4096}`,
	reflect.TypeFor[Volume]():       `{name: data, mountPath: /data, hostPath: /srv/sandboxctl/data}`,
	reflect.TypeFor[Tmpfs]():        `{size: 64Mi}`,
	reflect.TypeFor[IDMappings]():   `{uids: [{containerID: 0, hostID: 100000, size: 65536}], gids: [{containerID: 0, hostID: 100000, size: 65536}]}`,
	reflect.TypeFor[IDMapping]():    `{containerID: 0, hostID: 100000, size: 65536}`,
	reflect.TypeFor[Network]():      `{mode: none}`,
	reflect.TypeFor[Resources]():    `{cpu: 500m, memory: 256Mi, pids: 128}`,
	reflect.TypeFor[Backoff]():      `{initial: 1s, max: 5m}`,

	reflect.TypeFor[AllowedPath]():   `{path: /srv/sandboxctl, access: readOnly}`,
	reflect.TypeFor[RootPolicy]():    `{dirs: [{path: /srv/sandboxctl, access: readOnly}]}`,
	reflect.TypeFor[NetworkPolicy](): `{netns: [shop]}`,
}

// listExamples are those of lists and maps of plain values, by field.
var listExamples = map[string]string{
	"command": `[sleep, "1"]`,
	"args":    `["-v", "1"]`,
	"groups":  `[1000, 1001]`,
	"add":     `[NET_ADMIN]`,
	"drop":    `[ALL]`,
	"options": `[noexec, nodev]`,

	"labels":      `{app: web}`,
	"annotations": `{note: text}`,

	"netns":        `[shop]`,
	"capabilities": `[NET_ADMIN]`,
	"platforms":    `[systrap]`,
	"fileAccess":   `[proxy]`,
}

// example is one line of YAML that is right for a field of the type given, ""
// if there is none.
func example(t reflect.Type, path string) string {
	field := path[strings.LastIndexByte(path, '.')+1:]
	value := examples[t]
	if t.Kind() != reflect.Struct {
		value = listExamples[field]
		if value == "" && t.Kind() == reflect.Slice && examples[t.Elem()] != "" {
			value = "[" + examples[t.Elem()] + "]"
		}
	}
	if value == "" || strings.HasSuffix(field, "]") {
		return value // an item of a list has no name
	}
	return field + ": " + value
}
