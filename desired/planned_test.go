// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/desired/fields"
)

// The manifest reference names what is not supported yet, all of it and nothing else: it
// would tell users that what they need is missing after it has come.
func TestPlannedDocs(t *testing.T) {
	t.Parallel()
	paths := map[reflect.Type][]string{
		reflect.TypeFor[Spec]():      {""},
		reflect.TypeFor[EnvSource](): {"env[].valueFrom."},
		reflect.TypeFor[EnvFrom]():   {"envFrom[]."},
		reflect.TypeFor[FileSet]():   {"volumes[].config.", "volumes[].secret."},
	}
	var want []string
	for field, values := range fields.Planned {
		for _, v := range values {
			want = append(want, "`"+strings.TrimPrefix(field, "spec.")+": "+v+"`")
		}
	}
	for typ, names := range plannedFields {
		if paths[typ] == nil {
			t.Errorf("where is a %s in a manifest?", typ)
		}
		for name := range names {
			for _, p := range paths[typ] {
				want = append(want, "`"+p+name+"`")
			}
		}
	}
	slices.Sort(want)
	sentence := "Not supported yet, and refused with an error that says so: " + strings.Join(want, ", ") + "."
	page, err := os.ReadFile("../docs/reference/manifest.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(strings.Fields(string(page)), " "), sentence) {
		t.Errorf("docs/reference/manifest.md does not say, in lines of any length:\n%s", sentence)
	}
}

// What people know from Compose and Kubernetes is told by its name here, or as what there
// is not yet.
func TestForeignFields(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"livenessProbe: {}":                            "spec.livenessProbe: probes is not supported yet",
		"healthcheck: {test: x}":                       "spec.healthcheck: probes is not supported yet",
		"depends_on: [db]":                             "spec.depends_on: dependsOn is not supported yet",
		"ports: [80]":                                  "spec.ports: ports has another name here; use network: {ports: [{containerPort: 80, hostPort: 8080}]}",
		"dns: [1.1.1.1]":                               "spec.dns: dns has another name here; use network: {dns: {servers: [9.9.9.9]}}",
		"expose: [80]":                                 "use network: {ports: [{containerPort: 80}]}",
		"links: [db]":                                  "use network: {join: [default]} in both",
		"networks: [front]":                            "use network: {join: [front]}",
		"extra_hosts: [a]":                             "use network: {extraHosts:",
		"network: {networks: [front]}":                 "spec.network.networks: networks has another name here; use join: [front]",
		`network: {ports: ["8080:80"]}`:                `spec.network.ports[0]: expected an object, got "8080:80"; write {containerPort: 80, hostPort: 8080}`,
		"network: {ports: [80]}":                       "spec.network.ports[0]: expected an object, got the number 80; write {containerPort: 80}",
		`network: {ports: [http]}`:                     `spec.network.ports[0]: expected an object, got "http"; for example {containerPort: 80, hostPort: 8080}`,
		"network: {ports: [{target: 80}]}":             "target has another name here; use containerPort",
		`network: {extraHosts: ["registry:10.0.0.5"]}`: `write {ip: "10.0.0.5", names: [registry]}`,
		"network: {dns: {servers: [host-gateway]}}":    "in extraHosts only",
		"containers: [{name: a}]":                      "spec.containers: containers has another name here; use command, args, env and volumes of the one program here",
		"entrypoint: [sh]":                             "spec.entrypoint: entrypoint has another name here; use command",
		"restart: always":                              "spec.restart: restart has another name here; use restartPolicy: Always",
		"securityContext: {}":                          "spec.securityContext: securityContext has another name here; use user:",
		"hostNetwork: true":                            "use network: {mode: host}",
		"mem_limit: 1g":                                "use resources: {memory: 256Mi}",
		"resources: {limits: {memory: 1}}":             "spec.resources.limits: limits has another name here; use cpu, memory and pids here",
		"volumes: [{name: a, mountPath: /a, tmpfs: {sizeLimit: 1Gi}}]": "spec.volumes[0].tmpfs.sizeLimit: sizeLimit has another name here; use size",
		"volumes: [{name: a, mountPath: /a, hostPath: {path: /a}}]":    "spec.volumes[0].hostPath: expected a string, got an object; for example hostPath: /srv/sandboxctl/data",
		"volumes: [{name: a, mountPath: /a, configMap: {name: a}}]":    "use config",
		"resources: {ports: 1}": `unknown field "ports"`, // only where they would be
		"working_dir: /":        `did you mean "workingDir"?`,
	} {
		got := problems(t, with(spec))
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s\nexpected %s", spec, got, want)
		}
	}
	for field := range foreignFields()[reflect.TypeFor[Spec]()] {
		if _, ours := reflect.TypeFor[Spec]().FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, field) }); ours {
			t.Errorf("%s is a field", field)
		}
	}
}
