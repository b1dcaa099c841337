// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"reflect"
	"strings"
	"testing"

	"sandboxctl.dev/desired/yamldoc"
)

// shapes calls fn for every object, list and map that a kind of document has.
func shapes(root reflect.Type, fn func(path string, t reflect.Type)) {
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Slice:
			fn(path, t)
			walk(t.Elem(), path+"[0]")
		case reflect.Map:
			fn(path, t)
		case reflect.Struct:
			if path != "" {
				fn(path, t)
			}
			for _, f := range yamldoc.FieldsOf(t) {
				walk(f.Type, yamldoc.Join(path, f.Name))
			}
		}
	}
	walk(root, "")
}

// Every object and list has an example, and following it is no mistake.
func TestShapeExamples(t *testing.T) {
	t.Parallel()
	for _, kind := range []KindInfo{manifestKinds[0], policyKinds[0]} {
		shapes(kind.Schema.Type, func(path string, typ reflect.Type) {
			e := kind.Schema.Example(typ, path)
			if e == "" {
				t.Errorf("%s %s has no example", kind.Kind, path)
				return
			}
			name, value := path[strings.LastIndexByte(path, '.')+1:], e
			if strings.HasSuffix(path, "]") {
				name = "item"
			} else {
				key, rest, found := strings.Cut(e, ": ")
				if !found || key != name {
					t.Errorf("%s %s: the example %q is of another field", kind.Kind, path, e)
				}
				value = rest
			}
			// A document of that one field.
			schema := *kind.Schema
			schema.Type = reflect.StructOf([]reflect.StructField{{Name: "F", Type: typ, Tag: reflect.StructTag(`json:"` + name + `"`)}})
			d := yamldoc.Parse("f", yamldoc.Chunk{Text: []byte(name + ": " + value), Line: 1}, "")
			if d.Parsed() {
				d.Check(&schema)
			}
			if len(d.Problems()) > 0 {
				t.Errorf("%s %s: the example %q is refused: %v", kind.Kind, path, e, d.Problems())
			}
		})
	}
}

// A value of another shape is told with the one that is expected.
func TestWrongShape(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		`command: sleep 1`:                  `spec.command: expected a list, got "sleep 1"; for example command: [sleep, "1"]`,
		`args: {a: b}`:                      `spec.args: expected a list, got an object; for example args: ["-v", "1"]`,
		`env: {A: b}`:                       `spec.env: expected a list, got an object; for example env: [{name: KEY, value: text}]`,
		`env: [A=b]`:                        `spec.env[0]: expected an object, got "A=b"; for example {name: KEY, value: text}`,
		`volumes: ["/a:/b"]`:                `spec.volumes[0]: expected an object, got "/a:/b"; for example {name: data, mountPath: /data, hostPath: /srv/sandboxctl/data}`,
		`volumes:`:                          `spec.volumes: expected a list, got nothing; for example volumes: [{name:`,
		`user: 1000`:                        `spec.user: expected an object, got the number 1000; for example user: {uid: 1000, gid: 1000}`,
		`user: {uid: 1, gid: 1, groups: 5}`: `spec.user.groups: expected a list, got the number 5; for example groups: [1000, 1001]`,
		`resources: 256Mi`:                  `spec.resources: expected an object, got "256Mi"; for example resources: {cpu: 500m, memory: 256Mi, pids: 128}`,
		`capabilities: [NET_RAW]`:           `spec.capabilities: expected an object, got a list; for example capabilities: {add: [NET_ADMIN], drop: [ALL]}`,
		`network: host`:                     `spec.network: expected an object, got "host"; for example network: {mode: none}`,
		`backoff: 1s`:                       `spec.backoff: expected an object, got "1s"; for example backoff: {initial: 1s, max: 5m}`,
	} {
		text := with(spec)
		if strings.HasPrefix(spec, "command") {
			text = strings.Replace(minimal, "command: [sh]", spec, 1)
		}
		if got := problems(t, text); !strings.Contains(got, want) {
			t.Errorf("%s: got\n%s\nexpected\n%s", spec, got, want)
		}
	}
}
