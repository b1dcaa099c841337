// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"net/netip"
	"strings"
	"testing"

	"sandboxctl.dev/desired/ownfield"
)

// Sources of the environment are checked to the last word, each mistake at its place.
func TestEnvironmentProblems(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"env: [{name: A, valueFrom: {field: metadata.name}}]":                                                                     "",
		"env: [{name: A, valueFrom: {field: spec.hostname}}]":                                                                     "",
		"env: [{name: A, valueFrom: {field: metadata.nam}}]":                                                                      `f.yaml:7:31: spec.env[0].valueFrom.field: expected one of metadata.name, metadata.labels['NAME'], metadata.annotations['NAME'], spec.hostname, network.ip, network.ip['NETWORK'], network.ips, got "metadata.nam"; did you mean "metadata.name"?`,
		"env: [{name: A, valueFrom: {field: status.podIP}}]":                                                                      `expected one of metadata.name, metadata.labels['NAME'], metadata.annotations['NAME'], spec.hostname, network.ip, network.ip['NETWORK'], network.ips, got "status.podIP"; did you mean "network.ip"?`,
		"env: [{name: A, valueFrom: {field: network.ip}}]":                                                                        `f.yaml:7:31: spec.env[0].valueFrom.field: network.ip is an address on a network of sandboxctl, and network.mode is none; set network: {mode: bridge}, or remove the variable`,
		"env: [{name: A, valueFrom: {field: network.ip}}]\n  network: {mode: host}":                                               `network.mode is host`,
		"env: [{name: A, valueFrom: {field: network.ip}}, {name: B, valueFrom: {field: network.ips}}]\n  network: {mode: bridge}": "",
		"env: [{name: A, valueFrom: {field: \"network.ip['back']\"}}]\n  network: {join: [front, back]}":                          "",
		"env: [{name: A, valueFrom: {field: \"network.ip['bak']\"}}]\n  network: {join: [front, back]}":                           `spec.env[0].valueFrom.field: network.join has no "bak"; did you mean "back"?`,
		"env: [{name: A, valueFrom: {field: \"metadata.labels['app']\"}}]":                                                        `f.yaml:7:31: spec.env[0].valueFrom.field: metadata.labels has no "app"`,
		"env: [{name: A, valueFrom: {field: \"metadata.annotations['a.b/c']\"}}]":                                                 `metadata.annotations has no "a.b/c"`,
		"env: [{name: A, valueFrom: {field: metadata.labels.app}}]":                                                               `expected one of`,
		"env: [{name: A, valueFrom: {}}]":                                                                                         `f.yaml:7:19: spec.env[0].valueFrom.field: is missing: expected a field of the manifest such as metadata.name; or file, the path of a file with the value; or config or secret`,
		"env: [{name: A, valueFrom: metadata.name}]":                                                                              `f.yaml:7:30: spec.env[0].valueFrom: expected an object, got "metadata.name"; for example valueFrom: {field: metadata.name}`,
		"env: [{name: A, valueFrom: {fieldRef: {fieldPath: a}}}]":                                                                 `f.yaml:7:31: spec.env[0].valueFrom.fieldRef: fieldRef has another name here; use field: metadata.name`,
		"env: [{name: A, value: b, valueFrom: {field: metadata.name}}]":                                                           `f.yaml:7:29: spec.env[0].valueFrom: expected value or valueFrom, got both`,
		"env: [{name: A, valueFrom: {secret: {name: a, key: b}, optional: true}}]":                                                `f.yaml:7:58: spec.env[0].valueFrom.optional: belongs into secret, beside name and key`,
		"env: [{name: A, valueFrom: {secret: {name: a, key: b}, file: /x}}]":                                                      `f.yaml:7:19: spec.env[0].valueFrom: expected one of field, file, config, secret`,
		"env: [{name: A, valueFrom: {secret: {name: A, key: ../b}}}]":                                                             `f.yaml:7:49: spec.env[0].valueFrom.secret.key: expected a key of letters`,
		"env: [{name: A, valueFrom: {config: {key: b}}}]":                                                                         `spec.env[0].valueFrom.config.name: is missing: expected the name of a document`,
		"env: [{name: A, valueFrom: {config: b}}]":                                                                                `f.yaml:7:39: spec.env[0].valueFrom.config: expected an object, got "b"; for example config: {name: web, key: TOKEN}`,
		"envFrom: [{config: [a]}]":                                                                                                `f.yaml:7:22: spec.envFrom[0].config: expected a name, got a list; for example config: {name: web}`,
		"envFrom: [{config: 1}]":                                                                                                  `spec.envFrom[0].config: expected a name, got the number 1`,
		"envFrom: [{config: A_b}]":                                                                                                `spec.envFrom[0].config.name: expected a DNS label`,
		"envFrom: [{config: {nam: a}}]":                                                                                           `did you mean "name"?`,
		"envFrom: [{config: a, secret: b}]":                                                                                       `f.yaml:7:13: spec.envFrom[0]: expected one of file, config, secret, got several`,
		"envFrom: [{config: a, format: raw}]":                                                                                     `spec.envFrom[0].format: is for a file`,
		"env: [{name: A, valueFrom: {file: /srv/a}}, {name: B, valueFrom: {file: /srv/b, optional: true, onChange: ignore}}]":     "",
		"env: [{name: A, valueFrom: {file: b}}]":                                                                                  `f.yaml:7:31: spec.env[0].valueFrom.file: expected an absolute path, got "b"`,
		"env: [{name: A, valueFrom: {file: /b, field: metadata.name}}]":                                                           `f.yaml:7:19: spec.env[0].valueFrom: expected one of field, file, config, secret, got several`,
		"env: [{name: A, valueFrom: {file: /b, onChange: never}}]":                                                                `spec.env[0].valueFrom.onChange: expected one of restart, ignore, got "never"`,
		"env: [{name: A, valueFrom: {field: metadata.name, optional: true}}]":                                                     `spec.env[0].valueFrom: optional and onChange are for other sources`,
		"env: [" + strings.Repeat("{name: A, valueFrom: {file: /b}},", 51) + "]":                                                  `f.yaml:7:3: spec.env: expected at most 50 values of files, got 51; use envFrom`,
		"envFrom: [{file: /srv/sandboxctl/a.env}]":                                                                                "",
		"envFrom: [{file: /a, format: raw, prefix: P_, optional: true, onChange: ignore}, {file: /a}]":                            "",
		"envFrom: [{file: a.env}]":                                                                                                `f.yaml:7:14: spec.envFrom[0].file: expected an absolute path, got "a.env"`,
		"envFrom: [{file: /a/../b}]":                                                                                              `did you mean "/b"?`,
		"envFrom: [{}]":                                                                                                           `f.yaml:7:13: spec.envFrom[0].file: is missing: expected the absolute path of an environment file`,
		"envFrom: [/a]":                                                                                                           `f.yaml:7:13: spec.envFrom[0]: expected an object, got "/a"; for example {file: /srv/sandboxctl/app.env}`,
		"envFrom: /a":                                                                                                             `f.yaml:7:12: spec.envFrom: expected a list, got "/a"; for example envFrom: [{file: /srv/sandboxctl/app.env}]`,
		"envFrom: [{file: /a, format: dotnev}]":                                                                                   `f.yaml:7:24: spec.envFrom[0].format: expected one of dotenv, raw, got "dotnev"; did you mean "dotenv"?`,
		"envFrom: [{file: /a, onChange: Restart}]":                                                                                `f.yaml:7:24: spec.envFrom[0].onChange: expected one of restart, ignore, got "Restart"; did you mean "restart"?`,
		"envFrom: [{file: /a, prefix: -x}]":                                                                                       `f.yaml:7:24: spec.envFrom[0].prefix: expected the beginning of names`,
		"envFrom: [{file: /a, optional: yes}]":                                                                                    `f.yaml:7:34: spec.envFrom[0].optional: expected true or false`,
		"envFrom: [{configMapRef: {name: a}}]":                                                                                    `spec.envFrom[0].configMapRef: configMapRef has another name here; use config: {name: NAME}`,
		"env_file: .env":                                                                                                          `f.yaml:7:3: spec.env_file: env_file has another name here; use envFrom: [{file: /srv/sandboxctl/app.env}]`,
		"environment: {A: b}":                                                                                                     `spec.environment: environment has another name here; use env: [{name: KEY, value: text}]`,
		"env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b}}}]":                                                          `use secret: {name: NAME, key: KEY}`,
		"envFrom: [" + strings.Repeat("{file: /a},", 51) + "]":                                                                    `f.yaml:7:3: spec.envFrom: expected at most 50 sources, got 51`,
		"root: {bundle: /b}\nenvFrom: [{file: /a}]":                                                                               `spec.envFrom: can't be set with root.bundle`,
	} {
		text := with(spec)
		if strings.Contains(spec, "bundle") {
			text = "apiVersion: " + APIVersion + "\nkind: Sandbox\nmetadata: {name: web}\nspec:\n  root: {bundle: /b}\n  envFrom: [{file: /a}]\n"
		}
		if got := problems(t, text); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: got\n%s\nexpected\n%s", spec, got, want)
		}
	}
}

// Whether others may write a volume too decides on a warning, and restarts nothing.
func TestHashOfShared(t *testing.T) {
	t.Parallel()
	hash := func(volumes string) string {
		t.Helper()
		docs, ps := Decode("f.yaml", []byte(with("volumes: ["+volumes+"]")))
		if len(ps) > 0 {
			t.Fatal(ps)
		}
		h := Hash(docs[0].Sandbox)
		if again := Hash(docs[0].Sandbox); again != h {
			t.Errorf("%s is %s and then %s", volumes, h, again)
		}
		return h
	}
	const volume = "{name: a, mountPath: /a, hostPath: /srv/sandboxctl/a"
	if hash(volume+"}") != hash(volume+", shared: true}") || hash(volume+"}") == hash(volume+", readOnly: true, shared: true}") {
		t.Error("the wrong fields count")
	}
	if got := problems(t, with("volumes: [{name: a, mountPath: /a, tmpfs: {}, shared: true}]")); !strings.Contains(got, "f.yaml:7:49: spec.volumes[0].shared: is for a hostPath") {
		t.Error(got)
	}
}

// What a sandbox has of its own labels is a part of what it is: a change of one of these
// restarts it, and of others not.
func TestHashOfFields(t *testing.T) {
	t.Parallel()
	hash := func(labels, env string) string {
		t.Helper()
		text := "apiVersion: " + APIVersion + "\nkind: Sandbox\nmetadata: {name: web, labels: {" + labels + "}}\nspec:\n  root: {host: {}}\n  command: [a]\n" + env
		docs, ps := Decode("f.yaml", []byte(text))
		if len(ps) > 0 {
			t.Fatal(ps)
		}
		return Hash(docs[0].Sandbox)
	}
	const env = "  env: [{name: A, valueFrom: {field: \"metadata.labels['a']\"}}]\n"
	one := hash("a: x, b: x", env)
	if hash("a: z, b: x", env) == one || hash("a: x, b: z", env) != one || hash("b: x", "") != hash("b: z", "") {
		t.Error("the wrong labels count")
	}
}

// An address is put into the environment of the one start that has it, and is no part of what
// the sandbox is.
func TestPlaced(t *testing.T) {
	t.Parallel()
	docs, ps := Decode("f.yaml", []byte(with("env: [{name: IP, valueFrom: {field: network.ip}}, {name: NAME, valueFrom: {field: metadata.name}}, {name: URL, value: \"http://$(IP)\"}]\n  network: {mode: bridge}")))
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	sb := docs[0].Sandbox
	hash := Hash(sb)
	at := []ownfield.Place{{Network: "default", Address4: netip.MustParseAddr("10.208.0.9")}}
	placed := Placed(sb, at)
	if e := placed.Spec.Env; e[0].Value != "10.208.0.9" || e[0].ValueFrom != nil || e[1].ValueFrom == nil || e[2].Value != "http://$(IP)" {
		t.Errorf("%+v", e)
	}
	if sb.Spec.Env[0].Value != "" || sb.Spec.Env[0].ValueFrom == nil || Hash(sb) != hash {
		t.Errorf("the manifest was changed: %+v", sb.Spec.Env[0])
	}
}
