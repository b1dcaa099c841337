// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/idmap"
)

func testRecord() *actual.Record {
	return &actual.Record{Name: "web", UID: "0123456789abcdef0123456789abcdef", Attempt: 3, SentryBinary: "/bin/s", GVisor: "1.2", Containers: []actual.Container{{Name: actual.AppName}}}
}

// full is a set-up with something in every field.
func full(t *testing.T) *Setup {
	t.Helper()
	maps := &idmap.Maps{UIDs: []specs.LinuxIDMapping{mapped(0, 100000, 65536)}, GIDs: []specs.LinuxIDMapping{mapped(0, 200000, 65536)}}
	hook := []specs.Hook{{Path: "/bin/h", Args: []string{"h"}, Timeout: new(3)}}
	options := MountOptions{ReadOnly: true, NoExec: true, NoSUID: true, NoDev: true, NoATime: true, Single: true, CopyUp: true, Atime: 16, Data: []string{"mode=1777"}}
	source := Source{
		Path: "/srv/<a>", Kind: hostpolicy.VolumePath, Field: "spec.volumes[0].hostPath", Allowed: "/srv", Volume: "data", SubPath: "a/b", Owner: &desired.Ownership{UID: new(uint32(4)), GID: new(uint32(5)), Mode: "0750", When: desired.OwnershipFresh}, Host: true, ReadOnly: true, Options: options,
		Empty: true, InMemory: "conf", Disk: &DiskSource{Volume: "d", Size: 8}, Image: &ImageSource{Ref: "docker.io/library/a:1", Digest: "sha256:aa"}, Hostname: "h", Resolver: "/etc/resolv.conf", Names: true, HostsAt: "/dev/sandboxctl/hosts", ResolvConf: "nameserver 10.0.0.1\n", User: &User{UID: 1, GID: 2, Groups: []uint32{3}}, Maps: maps,
	}
	st := &Setup{
		HostNetwork: true, NetNS: "/run/netns/a", Passthrough: true,
		RawSockets: true, DirectFS: true, Maps: maps, Limits: cgroup.Limits{CPU: 1, Memory: 1 << 62, PIDs: 3}, Defaults: cgroup.Limits{CPU: 4, Memory: 5, PIDs: 6},
		LogSize: 7, DefaultDisk: 6, CgroupsPath: "/c", Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: 9}},
		Containers: []Container{{
			Name: actual.AppName,
			Spec: &specs.Spec{
				Version: "1.2.0", Hostname: "h", Root: &specs.Root{Path: "/"}, Mounts: DefaultMounts(),
				Process: &specs.Process{
					Args: []string{"a", "é\x00\"\n"}, Cwd: "/", Env: []string{"A=1"}, User: specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5}}, NoNewPrivileges: true,
					Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 1<<64 - 1}},
				},
				Linux: &specs.Linux{Seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, Sysctl: map[string]string{"net.a": "1"}},
			},
			Root: source, Volumes: []Source{source, {Path: "/b"}}, Overlay: desired.OverlayMemory, OverlaySize: 9, CopyUp: []string{"/tmp"}, Errnos: []uint{1, 38},
			Masked: []string{"/m"}, Readonly: []string{"/r"}, Bundle: "/srv/b", Init: actual.InitOwn, Restores: true, PrivateEnv: true,
			Hooks:      &Hooks{Bundle: "/srv/b", Hooks: &specs.Hooks{Poststop: hook}, Annotations: map[string]string{"a": "b"}, Env: []string{"A=1"}},
			StartHooks: &Hooks{Bundle: "/srv/b", Hooks: &specs.Hooks{StartContainer: hook}},
		}},
	}
	st.App().Described = st.CopySpec()
	st.App().Described.Mounts = st.App().Described.Mounts[:1]
	for _, v := range []any{*st, *st.App(), st.App().Root, st.App().Root.Options, *st.App().Hooks} {
		v := reflect.ValueOf(v)
		for i := range v.NumField() {
			if f := v.Type().Field(i); v.Field(i).IsZero() && f.Tag.Get("json") != "-" {
				t.Errorf("%s of %s is not tried", f.Name, v.Type())
			}
		}
	}
	return st
}

// What is written down is what was built, field by field, and it is on disks: how it
// is written must not change within a version.
func TestFileGolden(t *testing.T) {
	t.Parallel()
	rec, want := testRecord(), full(t)
	b, err := Encode(rec, want)
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "v1.json")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != string(old) {
		t.Errorf("a set-up is written as\n%s\nexpected\n%s", b, old)
	}
	got, err := Decode(rec, old)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v, expected %+v", got, err, want)
	}
	// The policy of the moment is no part of it.
	want.Policy = hostpolicy.Default()
	if again, err := Encode(rec, want); err != nil || string(again) != string(b) {
		t.Errorf("with a policy it is %s %v", again, err)
	}
}

func app(m map[string]any) map[string]any {
	return m["setup"].(map[string]any)["containers"].([]any)[0].(map[string]any)
}

func containers(m map[string]any, list any) { m["setup"].(map[string]any)["containers"] = list }

// A file of another sandbox, attempt or version is not taken for this one's, nor one
// of containers that this program can't run.
func TestFileRefused(t *testing.T) {
	t.Parallel()
	rec := testRecord()
	b, err := Encode(rec, full(t))
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(m map[string]any){
		"of version 2, this program knows 1":     func(m map[string]any) { m["version"], m["more"] = 2, 1 },
		"of version 0":                           func(m map[string]any) { delete(m, "version") },
		"it is of attempt 2 of web":              func(m map[string]any) { m["attempt"] = 2 },
		"it is of attempt 3 of web (another)":    func(m map[string]any) { m["uid"] = "another" },
		"it is of attempt 3 of db":               func(m map[string]any) { m["name"] = "db" },
		"unknown field \"privileged\"":           func(m map[string]any) { m["setup"].(map[string]any)["privileged"] = true },
		"a part of it is missing":                func(m map[string]any) { delete(m, "setup") },
		"a part of it is missing ":               func(m map[string]any) { delete(app(m), "spec") },
		"a part of it is missing  ":              func(m map[string]any) { delete(app(m)["spec"].(map[string]any), "process") },
		"of other containers than one":           func(m map[string]any) { m["setup"] = map[string]any{} },
		"of other containers than one ":          func(m map[string]any) { containers(m, []any{}) },
		"of other containers than one  ":         func(m map[string]any) { containers(m, nil) },
		"of other containers than one   ":        func(m map[string]any) { containers(m, []any{app(m), app(m)}) },
		"of other containers than one    ":       func(m map[string]any) { containers(m, []any{app(m), map[string]any{"name": "sidecar"}}) },
		"than one named \"app\"":                 func(m map[string]any) { app(m)["name"] = "sidecar" },
		"than one named \"app\" ":                func(m map[string]any) { containers(m, []any{nil}) },
		"unknown field \"spec\"":                 func(m map[string]any) { m["setup"].(map[string]any)["spec"] = app(m)["spec"] },
		"cannot unmarshal string into Go struct": func(m map[string]any) { m["setup"] = "x" },
	} {
		var m map[string]any
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.UseNumber() // 1<<64-1 is none for float64
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		change(m)
		bad, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(rec, bad); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%v, expected %q", err, want)
		}
		// A command is started by the same rules. What it has no use for it does not see.
		_, _, err = DecodeExec(rec, bad, nil)
		if unseen := strings.HasPrefix(want, "unknown field"); (err == nil) != unseen || !unseen && !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("for a command: %v, expected %q", err, want)
		}
	}
	for _, bad := range []string{"", "null", "[]", string(b) + "{}", string(b[:len(b)-1])} {
		if _, err := Decode(rec, []byte(bad)); err == nil {
			t.Errorf("%.40q is a set-up", bad)
		}
		if _, _, err := DecodeExec(rec, []byte(bad), nil); err == nil {
			t.Errorf("%.40q is a set-up, for a command", bad)
		}
	}
}

// A command is started as the whole set-up says.
func TestDecodeExec(t *testing.T) {
	t.Parallel()
	rec := testRecord()
	for what, change := range map[string]func(*Setup){
		"full":              func(*Setup) {},
		"no private values": func(st *Setup) { st.App().PrivateEnv = false },
		"no raw sockets":    func(st *Setup) { st.RawSockets = false },
		"no capabilities":   func(st *Setup) { st.App().Spec.Process.Capabilities = nil },
		"a terminal":        func(st *Setup) { st.App().Spec.Process.Terminal = true },
		"root":              func(st *Setup) { st.App().Spec.Process.User = specs.User{} },
		"net_raw":           func(st *Setup) { st.App().Spec.Process.Capabilities.Bounding = []string{"CAP_NET_RAW", "CAP_KILL"} },
		"no environment":    func(st *Setup) { st.App().Spec.Process.Env = nil },
		"another directory": func(st *Setup) { st.App().Spec.Process.Cwd = "/é" },
	} {
		st := full(t)
		change(st)
		b, err := Encode(rec, st)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := Decode(rec, b)
		if err != nil {
			t.Fatal(err)
		}
		p := whole.App().Spec.Process
		p.Args = []string{"id", "-u"}
		want := whole.Exec(p)
		if got, private, err := DecodeExec(rec, b, p.Args); err != nil || private != whole.App().PrivateEnv || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, expected %+v", what, got, err, want)
		}
	}
}

// A policy that allows less than at the start is noticed, though it never saw the
// bundle.
func TestAllowedBy(t *testing.T) {
	t.Parallel()
	policy := func(lines string) *hostpolicy.Policy {
		p, problems := hostpolicy.Decode("policy.yaml", []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\n"+lines))
		if p == nil {
			t.Fatal(problems)
		}
		return p
	}
	const paths = "hostPaths: [{path: /srv/data, access: readWrite}]\nroot: {bundles: [{path: /srv/b, access: readWrite}]}\n"
	wide := policy(paths + "capabilities: [ALL]\n")
	sb := &desired.Sandbox{Spec: desired.Spec{Root: desired.Root{Bundle: "/srv/b"}, Overlay: desired.OverlayNone}}
	st, err := FromManifest(sb, wide, nil, func(*Source) (*specs.Spec, error) {
		return &specs.Spec{
			Version: specs.Version, Root: &specs.Root{Path: "rootfs"},
			Process: &specs.Process{Args: []string{"a"}, Cwd: "/", Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_ADMIN"}}},
			Mounts:  []specs.Mount{{Destination: "/data", Type: "bind", Source: "/srv/data/x", Options: []string{"rbind"}}},
			Linux:   &specs.Linux{Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(1 << 30))}}},
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Encode(testRecord(), st)
	if err != nil {
		t.Fatal(err)
	}
	if st, err = Decode(testRecord(), b); err != nil {
		t.Fatal(err)
	}
	for lines, want := range map[string]string{
		paths + "capabilities: [ALL]\n": "",
		paths:                           "does not allow \"CAP_SYS_ADMIN\"",
		paths + "capabilities: [ALL]\nrootUser: false\n":                                                                                "process.user",
		paths + "capabilities: [ALL]\nmaxResources: {memory: 512Mi}\n":                                                                  "linux.resources.memory",
		"hostPaths: []\nroot: {bundles: [{path: /srv/b, access: readWrite}]}\ncapabilities: [ALL]\n":                                    "mounts[0].source: ",
		"hostPaths: [{path: /srv/data, access: readOnly}]\nroot: {bundles: [{path: /srv/b, access: readWrite}]}\ncapabilities: [ALL]\n": "mounts[0].source: ",
		"hostPaths: [{path: /srv/data, access: readWrite}]\nroot: {bundles: []}\ncapabilities: [ALL]\n":                                 "/srv/b",
		"hostPaths: [{path: /srv/data, access: readWrite}]\nroot: {bundles: [{path: /srv/b, access: readOnly}]}\ncapabilities: [ALL]\n": "root.path: ",
	} {
		if err := st.AllowedBy(policy(lines)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", lines, err, want)
		}
	}
}

func mapped(inside, outside, size uint32) specs.LinuxIDMapping {
	return specs.LinuxIDMapping{ContainerID: inside, HostID: outside, Size: size}
}
