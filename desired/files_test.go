// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Volumes in memory are checked to the last word, each mistake at its place.
func TestFileSetProblems(t *testing.T) {
	t.Parallel()
	many := make([]string, MaxFileSet+1)
	for i := range many {
		many[i] = fmt.Sprintf("f%d: x", i)
	}
	for set, want := range map[string]string{
		"config: {data: {a: x}}": "",
		"config: {data: {a.conf: x, conf.d/b: z}, files: {c: /srv/c}, mode: \"0640\", optional: true, onChange: ignore}": "",
		"secret: {files: {a: /srv/a}, mode: \"0400\"}":                                                                   "",
		"secret: {data: {a: x}}":                                "f.yaml:7:47: spec.volumes[0].secret.data: what is in a manifest is shown by every verb and is no secret; use files",
		"config: {}":                                            "f.yaml:7:38: spec.volumes[0].config: expected at least one file; for example files: {token: /srv/sandboxctl/token}",
		"config: [a]":                                           "spec.volumes[0].config: expected an object, got a list; for example config: {files: {token: /srv/sandboxctl/token}}",
		"config: {data: [a]}":                                   "spec.volumes[0].config.data: expected an object of names and values, got a list; for example data: {app.conf: text}",
		"config: {data: {a: 5}}":                                "spec.volumes[0].config.data.a: expected a string, got the number 5; quote it: \"5\"",
		"config: {data: {../a: x}}":                             `spec.volumes[0].config.data["../a"]: expected the name of a file in the volume, such as app.conf or conf.d/app.conf, got "../a"`,
		"config: {data: {/a: x}}":                               `expected the name of a file in the volume`,
		"config: {data: {a//b: x}}":                             `expected the name of a file in the volume`,
		"config: {data: {a/: x}}":                               `expected the name of a file in the volume`,
		"config: {data: {.: x}}":                                `expected the name of a file in the volume`,
		"config: {data: {\"\": x}}":                             `expected the name of a file in the volume`,
		"config: {data: {\"a\\tb\": x}}":                        `expected a name without control characters`,
		"config: {data: {a/b/c/d/e/f/g/h/i: x}}":                `expected at most 8 directories`,
		"config: {data: {" + strings.Repeat("x", 255) + ": x}}": `the name has 255 bytes, at most 254 are possible`,
		"config: {data: {a: x}, files: {a: /srv/a}}":            `a is given twice; remove one of them`,
		"config: {data: {a: x, a/b: z}}":                        `a is a file of this volume, and can't be a directory too; rename one of them`,
		"config: {data: {a/b/c: x}, files: {a: /srv/a}}":        `a is a file of this volume`,
		"config: {data: {" + strings.Join(many, ", ") + "}}":    `f.yaml:7:38: spec.volumes[0].config: expected at most 500 files, got 501`,
		"secret: {files: {a: b}}":                               `spec.volumes[0].secret.files.a: expected an absolute path, got "b"`,
		"secret: {files: {a: /a/../b}}":                         `did you mean "/b"?`,
		"secret: {files: {a: /a}, mode: 0400}":                  `spec.volumes[0].secret.mode: expected a string, got the number 0400; quote it: "0400"`,
		"secret: {files: {a: /a}, mode: \"1777\"}":              `spec.volumes[0].secret.mode: expected permissions such as "0444" or "0400", got "1777"`,
		"secret: {files: {a: /a}, mode: rw}":                    `expected permissions`,
		"secret: {files: {a: /a}, mode: \"00444\"}":             `expected permissions`,
		"secret: {files: {a: /a}, onChange: reload}":            `spec.volumes[0].secret.onChange: expected one of restart, signal, ignore, got "reload"`,
		"configMap: {name: x}":                                  `spec.volumes[0].configMap: configMap has another name here; use config`,
		"secret: {files: {a: /a}, defaultMode: 256}":            `defaultMode has another name here; use mode, such as "0400"`,
		"secret: {secretName: x}":                               `secretName has another name here; use name`,
		"config: {items: [a]}":                                  `f.yaml:7:55: spec.volumes[0].config.items[0]: expected an object, got "a"; for example {key: app.conf, path: app.conf}`,
		"secret: {file: {a: /a}}":                               `spec.volumes[0].secret.file: unknown field "file"; did you mean "files"?`,
		"config: {data: {a: x}}, secret: {files: {a: /a}}":      `spec.volumes[0]: expected exactly one of hostPath, volume, emptyDir, tmpfs, config, secret, got 2`,
		"hostPath: /a, secret: {files: {a: /a}}":                `got 2`,
	} {
		if got := problems(t, with("volumes: [{name: a, mountPath: /a, "+set+"}]")); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%.60s: got\n%s\nexpected\n%s", set, got, want)
		}
	}
}

func TestFileRefs(t *testing.T) {
	t.Parallel()
	docs, ps := Decode("f.yaml", []byte(with("env: [{name: P, value: x}, {name: Q, valueFrom: {field: metadata.name}}, {name: R, valueFrom: {file: /r}}]", "envFrom: [{file: /e, optional: true, onChange: ignore}]",
		"volumes: [{name: a, mountPath: /a, secret: {files: {z/y.b: /z, c: /c}}}, {name: b, mountPath: /b, tmpfs: {}}, {name: d, mountPath: /d, config: {data: {x: z}, files: {d: /d}, optional: true}}]")))
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	want := []FileRef{
		{"spec.env[2].valueFrom.file", "/r", false, OnChangeRestart, ""},
		{"spec.envFrom[0].file", "/e", true, OnChangeIgnore, ""},
		{"spec.volumes[0].secret.files.c", "/c", false, OnChangeRestart, "a"},
		{`spec.volumes[0].secret.files["z/y.b"]`, "/z", false, OnChangeRestart, "a"},
		{"spec.volumes[2].config.files.d", "/d", true, OnChangeRestart, "d"},
	}
	if got := docs[0].Sandbox.Spec.FileRefs(); !slices.Equal(got, want) {
		t.Errorf("%+v, expected %+v", got, want)
	}
	for mode, bits := range map[FileMode]uint32{"": 0o444, "0400": 0o400, "640": 0o640, "0": 0} {
		if got := mode.Bits(); got != bits {
			t.Errorf("%q is %o", mode, got)
		}
	}
}

// One file of a volume is mounted over one of the root: by its name in the volume, or by the
// key of a document. Only what is seen counts.
func TestOneFile(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: " + APIVersion + "\nkind: Sandbox\nmetadata: {name: web}\nspec:\n  root: {host: {}}\n  command: [a]\n  volumes: [{name: v, mountPath: /etc/nginx/nginx.conf, "
	for fields, want := range map[string]string{
		"subPath: a, config: {data: {a: x, b: z}}":                                     "",
		"subPath: d, config: {data: {d/a: x}}":                                         "",
		"subPath: d/a, config: {data: {d/a: x}, files: {e: /e}}":                       "",
		"subPath: e, secret: {files: {e: /e, f: /f}}":                                  "spec.volumes[0].secret.files.e=/e",
		"subPath: d, secret: {files: {d/e: /e, d/f: /f, dd: /g}}":                      "spec.volumes[0].secret.files.d/e=/e spec.volumes[0].secret.files.d/f=/f",
		"subPath: k, config: {name: c}":                                                "spec.volumes[0].subPath=config/c/k",
		"config: {name: c}":                                                            "spec.volumes[0].config.name=config/c",
		"subPath: b, secret: {name: s, items: [{key: x, path: a}, {key: z, path: b}]}": "spec.volumes[0].secret.items[1].key=secret/s/z",
		"subPath: a, ownership: {uid: 5}, config: {data: {a: x}}":                      "",
		"subPath: c, config: {data: {a: x}}":                                           `!spec.volumes[0].subPath: the volume has no file or directory "c"`,
		"subPath: nginx.cnf, config: {data: {nginx.conf: x}}":                          `!did you mean "nginx.conf"?`,
		"subPath: ../a, config: {data: {a: x}}":                                        `!expected a relative path without`,
		"subPath: /a, config: {data: {a: x}}":                                          `!expected a relative path without`,
		"subPath: a/b, config: {name: c}":                                              `!spec.volumes[0].subPath: expected a key`,
		"subPath: a/, config: {data: {a: x}}":                                          `!expected a relative path without`,
		"subPath: a, config: {data: {ab: x}}":                                          `!the volume has no file or directory "a"`,
		"subPath: x, secret: {name: s, items: [{key: x, path: a}]}":                    `!the volume has no file or directory "x"`,
		"subPath: a, tmpfs: {}":                                                        `!is for a hostPath, a named volume, config and secret`,
		"ownership: {uid: 5, mode: \"0400\"}, config: {data: {a: x}}":                  `!spec.volumes[0].ownership: expected only uid and gid`,
		"ownership: {uid: 5, when: onRootMismatch}, config: {data: {a: x}}":            `!expected only uid and gid`,
		"ownership: {uid: 4294967295}, config: {data: {a: x}}":                         `!is nobody's id`,
		"ownership: {}, config: {data: {a: x}}":                                        `!expected at least one of uid, gid`,
	} {
		docs, problems := Decode("m.yaml", []byte(head+fields+"}]\n"))
		if msg, bad := strings.CutPrefix(want, "!"); bad {
			if len(problems) == 0 || !strings.Contains(problems[0].Error(), msg) {
				t.Errorf("%s: %v, expected %q", fields, problems, msg)
			}
			continue
		}
		if len(problems) > 0 {
			t.Errorf("%s: %v", fields, problems)
			continue
		}
		var refs []string
		for _, r := range docs[0].Sandbox.Spec.FileRefs() {
			refs = append(refs, r.Field+"="+r.Path)
		}
		if got := strings.Join(refs, " "); got != want {
			t.Errorf("%s: refers to %q, expected %q", fields, got, want)
		}
	}
}

// What can't be mounted in a volume whose files the manifest names is told at its place.
func TestNestedVolumes(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: " + APIVersion + "\nkind: Sandbox\nmetadata: {name: web}\nspec:\n  root: {host: {}}\n  command: [a]\n  volumes:\n"
	one := "  - {name: one, mountPath: /a/f, subPath: f, config: {data: {f: x}}}\n"
	for volumes, want := range map[string]string{
		one + "  - {name: a, mountPath: /a, config: {data: {f: z}}}\n":                                                          "",
		one + "  - {name: a, mountPath: /a, config: {data: {g: z}}}\n":                                                          `m.yaml:8:17: spec.volumes[0].mountPath: volume "a" is read-only and has no file "f"`,
		one + "  - {name: a, mountPath: /a, secret: {files: {g: /g}}}\n":                                                        `volume "a" is read-only and has no file "f"`,
		one + "  - {name: a, mountPath: /a, secret: {name: s, items: [{key: k, path: f/k}]}}\n":                                 `"f" is a directory of volume "a"`,
		one + "  - {name: a, mountPath: /a, subPath: d, config: {data: {d/g: x, f: z}}}\n":                                      `has no file "d/f"`,
		one + "  - {name: a, mountPath: /a, config: {name: c}}\n":                                                               "", // its keys are known at a start
		one + "  - {name: a, mountPath: /a, hostPath: /srv/a, readOnly: true}\n":                                                "",
		one + "  - {name: a, mountPath: /a, volume: {name: a}, readOnly: true}\n":                                               "",
		one + "  - {name: a, mountPath: /a, tmpfs: {}, readOnly: true}\n":                                                       "", // gVisor makes it before it is read-only
		one + "  - {name: a, mountPath: /a, emptyDir: {}, readOnly: true}\n":                                                    "",
		"  - {name: a, mountPath: /a, config: {data: {g: z}}}\n  - {name: b, mountPath: /a/b, tmpfs: {}}\n":                     "",
		"  - {name: a, mountPath: /a, config: {data: {g: z}}}\n  - {name: b, mountPath: /a/g, emptyDir: {}}\n":                  `m.yaml:9:15: spec.volumes[1].mountPath: "g" is a file of volume "a", and a directory`,
		"  - {name: a, mountPath: /a, config: {data: {g: z}}}\n  - {name: b, mountPath: /a/g, hostPath: /srv/file}\n":           "",
		"  - {name: a, mountPath: /a, config: {data: {g: z}}}\n  - {name: b, mountPath: /a/g/h, hostPath: /srv/file}\n":         `"g" is a file of volume "a", and nothing can be mounted below it`,
		"  - {name: a, mountPath: /a, subPath: k, config: {name: c}}\n  - {name: b, mountPath: /a/g, tmpfs: {}}\n":              `it is below /a, where volume "a" mounts one file`,
		"  - {name: a, mountPath: /a, config: {data: {g: z}}}\n  - {name: b, mountPath: /a/f, subPath: k, config: {name: c}}\n": `has no file "f"`,
	} {
		_, problems := Decode("m.yaml", []byte(head+volumes))
		if want == "" && len(problems) > 0 || want != "" && (len(problems) != 1 || !strings.Contains(problems[0].Error(), want)) {
			t.Errorf("%s: %v, expected %q", volumes, problems, want)
		}
	}
}

// With onChange: signal a volume says which signal, and is one whose files can be replaced
// while the sandbox runs.
func TestOnChangeSignal(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: " + APIVersion + "\nkind: Sandbox\nmetadata: {name: web}\nspec:\n  root: {host: {}}\n  command: [a]\n  "
	volume := func(set string) string { return "volumes: [{name: v, mountPath: /v, " + set + "}]" }
	for fields, want := range map[string]string{
		volume("config: {name: c, onChange: signal}"):                                "SIGHUP",
		volume("secret: {name: c, onChange: signal, signal: usr1}"):                  "SIGUSR1",
		volume("config: {files: {a: /a}, data: {b: x}, onChange: signal}"):           "SIGHUP",
		volume("subPath: a, config: {files: {a: /a}, onChange: signal}"):             "SIGHUP",
		volume("config: {name: c}"):                                                  "",
		volume("config: {name: c, onChange: ignore}"):                                "",
		volume("config: {name: c, signal: SIGHUP}"):                                  "!spec.volumes[0].config.signal: is for onChange: signal",
		volume("config: {name: c, onChange: signal, signal: HUB}"):                   "!expected a signal such as",
		volume("config: {name: c, onChange: signal, signal: KILL}"):                  "!spec.volumes[0].config.signal: SIGKILL can't be handled by an application; use onChange: restart",
		volume("config: {name: c, onChange: signal, signal: 19}"):                    "!SIGSTOP can't be handled",
		volume("config: {name: c, onChange: signl}"):                                 `!did you mean "signal"?`,
		volume("config: {data: {a: x}, onChange: signal}"):                           "!spec.volumes[0].config.onChange: signal is for files and documents",
		volume("subPath: a, config: {name: c, optional: true, onChange: signal}"):    "!spec.volumes[0].subPath: with optional and onChange: signal expected a whole volume",
		"envFrom: [{config: c, onChange: signal}]":                                   "!spec.envFrom[0].onChange: expected one of restart, ignore: nobody can change the environment of a program that runs",
		"env: [{name: A, valueFrom: {file: /a, onChange: signal}}]":                  "!spec.env[0].valueFrom.onChange: expected one of restart, ignore: nobody can change",
		"env: [{name: A, valueFrom: {secret: {name: s, key: k}, onChange: signal}}]": "!spec.env[0].valueFrom.onChange: expected one of restart, ignore: nobody can change",
		"env: [{name: A, valueFrom: {secret: {name: s, key: k}, signal: HUP}}]":      `!unknown field "signal"`,
	} {
		docs, problems := Decode("m.yaml", []byte(head+fields+"\n"))
		if msg, bad := strings.CutPrefix(want, "!"); bad {
			if len(problems) == 0 || !strings.Contains(problems[0].Error(), msg) || !strings.HasPrefix(problems[0].Error(), "m.yaml:7:") {
				t.Errorf("%s: %v, expected %q", fields, problems, msg)
			}
			continue
		}
		if len(problems) > 0 {
			t.Errorf("%s: %v", fields, problems)
			continue
		}
		if got := string(docs[0].Sandbox.Spec.Volumes[0].InMemory().Signal); got != want {
			t.Errorf("%s: signal %q, expected %q", fields, got, want)
		}
	}
}
