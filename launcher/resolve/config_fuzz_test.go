// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/setup"
)

// configs are config.json files to begin with: one that is in order, and the
// shapes of attacks.
func configs() []string {
	const head = `{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"args":["a"],"cwd":"/","user":{"uid":5,"gid":6}}`
	return []string{
		head + `}`,
		head + `,"mounts":[{"destination":"/data","type":"bind","source":"data","options":["rbind","ro"]},{"destination":"/proc","type":"proc","source":"proc"}]}`,
		head + `,"annotations":{"dev.gvisor.flag.network":"host","dev.gvisor.internal.nvproxy":"true"}}`,
		head + `,"linux":{"resources":{"cpu":{"quota":9223372036854775807,"period":1},"memory":{"limit":-1},"pids":{"limit":1}}}}`,
		head + `,"linux":{"resources":{"cpu":{"quota":9223372036854775807,"period":18446744073709551615}}}}`,
		head + `,"linux":{"namespaces":[{"type":"network","path":"/proc/1/ns/net"},{"type":"user"}],"uidMappings":[{"containerID":0,"hostID":0,"size":4294967295}]}}`,
		head + `,"linux":{"maskedPaths":["/proc/kcore","/../etc","/"],"readonlyPaths":["/proc/sys","/"],"devices":[{"path":"/dev/sda","type":"b","major":8}]}}`,
		head + `,"hooks":{"createRuntime":[{"path":"/bin/sh","args":["sh","-c","id"]}],"startContainer":[{"path":"sh","timeout":-1}]}}`,
		head + `,"mounts":[{"destination":"/a/../..","type":"bind","source":"/"},{"destination":"a","source":"../.."}]}`,
		strings.Replace(head, `"rootfs"`, `"../../.."`, 1) + `}`,
		strings.Replace(head, `"/",`, `"/proc/self/fd/7",`, 1) + `}`,
		strings.Replace(head, `"uid":5`, `"uid":4294967295`, 1) + `}`,
		head + `}{}`, head + `,"process":null}`, head + `,"PROCESS":{"args":[]}}`, `null`, `[]`, `{}`, ``,
	}
}

// limited fails the test if fn allocates more than a config.json is worth.
func limited(t *testing.T, size int, fn func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20+256*uint64(size) {
		t.Fatalf("%d bytes for a config.json of %d", n, size)
	}
}

// checkSetup fails the test if a set-up tells the sentry something of the host or
// hands it something that nobody asked for.
func checkSetup(t *testing.T, st *setup.Setup) {
	t.Helper()
	s := st.App().Spec
	if s.Process == nil || len(s.Process.Args) == 0 || s.Process.Args[0] == "" || !filepath.IsAbs(s.Process.Cwd) || s.Root.Path != "/" {
		t.Fatalf("%+v", s.Process)
	}
	if len(s.Annotations) > 0 || s.Hooks != nil || len(s.Linux.Namespaces) > 0 || len(s.Linux.UIDMappings) > 0 || s.Linux.CgroupsPath != "" {
		t.Fatalf("passed on: %+v", s)
	}
	if st.Limits.CPU < 0 || st.Limits.Memory < 0 || st.Limits.PIDs < 0 {
		t.Fatalf("limits: %+v", st.Limits)
	}
	if !filepath.IsAbs(st.App().Root.Path) || filepath.Clean(st.App().Root.Path) != st.App().Root.Path {
		t.Fatalf("root %q", st.App().Root.Path)
	}
	binds := 0
	for _, m := range s.Mounts {
		if !filepath.IsAbs(m.Destination) || strings.Contains(m.Destination, "..") {
			t.Fatalf("mounted at %q", m.Destination)
		}
		if !setup.IsBind(m) {
			continue
		}
		v := st.App().Volumes[binds]
		binds++
		if !strings.HasPrefix(m.Source, "/volume/") || !v.Empty && (!filepath.IsAbs(v.Path) || filepath.Clean(v.Path) != v.Path) {
			t.Fatalf("%+v is %+v", m, v)
		}
	}
	if binds != len(st.App().Volumes) {
		t.Fatalf("%d bind mounts, %d volumes", binds, len(st.App().Volumes))
	}
	if _, err := json.Marshal(s); err != nil {
		t.Fatal(err)
	}
}

// Whatever is in the config.json of a manifest's bundle, under a policy that
// allows one directory: an error, or a set-up of what is in that directory.
func FuzzBundleConfig(f *testing.F) {
	for _, c := range configs() {
		f.Add([]byte(c))
	}
	const allowed = "/srv/allowed"
	policy, problems := hostpolicy.Decode("policy.yaml", []byte(`apiVersion: sandboxctl.dev/v1alpha1
kind: HostPolicy
hostPaths: [{path: /srv/allowed/data, access: readOnly}]
root: {dirs: [], bundles: [{path: /srv/allowed/bundles, access: readWrite}]}
`))
	if policy == nil {
		f.Fatal(problems)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), MaxConfig)]
		st := &setup.Setup{Policy: policy, Containers: []setup.Container{{Overlay: desired.OverlayMemory}}}
		var err error
		limited(t, len(b), func() {
			var cfg *specs.Spec
			if cfg, err = setup.DecodeBundleConfig(b); err == nil {
				err = st.FromConfig(allowed+"/bundles/b", cfg)
			}
		})
		if err != nil {
			return
		}
		checkSetup(t, st)
		if st.App().Hooks != nil {
			t.Fatal("hooks that the policy does not allow")
		}
		for i, s := range st.Sources() {
			if !strings.HasPrefix(s.Path+"/", allowed+"/") || s.Allowed == "" || !strings.HasPrefix(s.Path+"/", s.Allowed+"/") {
				t.Fatalf("source %d: %+v", i, s)
			}
			if !s.ReadOnly && !strings.HasPrefix(s.Path+"/", allowed+"/bundles/") {
				t.Fatalf("source %d is writable: %+v", i, s)
			}
		}
	})
}

// Whatever is in the config.json of an OCI client: an error, or a set-up that
// tells the sentry nothing of the host.
func FuzzContainerConfig(f *testing.F) {
	for _, c := range configs() {
		f.Add([]byte(c))
	}
	bundle := f.TempDir()
	for _, d := range []string{"rootfs/etc", "data"} {
		if err := os.MkdirAll(filepath.Join(bundle, d), 0o755); err != nil {
			f.Fatal(err)
		}
	}
	for link, to := range map[string]string{"rootfs/out": "/", "rootfs/loop": "loop", "rootfs/proc": "/proc"} {
		if err := os.Symlink(to, filepath.Join(bundle, link)); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), MaxConfig)]
		files := openFiles(t)
		var cfg specs.Spec
		if err := json.Unmarshal(b, &cfg); err != nil {
			return
		}
		var st *setup.Setup
		var err error
		limited(t, len(b), func() {
			if err = checkNamespaces(&cfg); err == nil {
				st, err = FromContainer(&cfg, bundle)
			}
		})
		if err == nil {
			checkSetup(t, st)
		}
		if n := openFiles(t); n > files {
			t.Fatalf("%d descriptors, before there were %d", n, files)
		}
	})
}

// openFiles is how many descriptors this process has.
func openFiles(tb testing.TB) int {
	tb.Helper()
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		tb.Fatal(err)
	}
	return len(names)
}
