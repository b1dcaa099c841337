// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/setup"
)

func manifest(change func(*desired.Spec)) *desired.Sandbox {
	s := &desired.Sandbox{APIVersion: desired.APIVersion, Kind: desired.Kind, Metadata: desired.Metadata{Name: "web"}}
	s.Spec.Root.Host = &desired.HostRoot{}
	s.Spec.Command = []string{"sh"}
	if change != nil {
		change(&s.Spec)
	}
	desired.Default(s)
	return s
}

func TestSetup(t *testing.T) {
	t.Parallel()
	st, err := FromManifest(manifest(func(s *desired.Spec) {
		s.Args = []string{"-c", "x"}
		s.Env = []desired.EnvVar{{Name: "A", Value: "b"}}
		s.Capabilities = &desired.Capabilities{Drop: []string{"all"}, Add: []string{"net_bind_service", "CAP_KILL"}}
		s.Rlimits = []desired.Rlimit{{Type: "nofile", Soft: 1, Hard: 2}}
		s.Volumes = []desired.Volume{
			{Name: "a", MountPath: "/a", HostPath: "/srv/a", ReadOnly: true},
			{Name: "t", MountPath: "/t", Tmpfs: &desired.Tmpfs{Size: 5}},
			{Name: "b", MountPath: "/b", HostPath: "/srv/b"},
		}
	}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := st.App().Spec.Process
	if !slices.Equal(p.Args, []string{"sh", "-c", "x"}) || !slices.Equal(p.Env, []string{"A=b", setup.DefaultPath}) || p.Cwd != "/" {
		t.Errorf("%+v", p)
	}
	if got := fmt.Sprint(p.Capabilities.Bounding, p.Rlimits); got != "[CAP_KILL CAP_NET_BIND_SERVICE] [{RLIMIT_NOFILE 2 1}]" {
		t.Error(got)
	}
	if st.MountConfs() != "lisafs:memory,lisafs:none,lisafs:none" || len(st.App().Volumes) != 2 || !st.App().Volumes[0].ReadOnly || st.App().Volumes[1].ReadOnly || !st.App().Root.ReadOnly {
		t.Errorf("%s %+v", st.MountConfs(), st.Sources())
	}
	// No path of the host is in what the sentry is told.
	for _, m := range st.App().Spec.Mounts {
		if strings.Contains(m.Source, "srv") {
			t.Errorf("%+v", m)
		}
	}
	if st.HostUserns() {
		t.Error("it is in the host's user namespace for nothing")
	}
	st, err = FromManifest(manifest(func(s *desired.Spec) { s.User = &desired.User{UID: new(uint32(1)), GID: new(uint32(2))} }), nil, nil)
	if err != nil || len(st.App().Spec.Process.Capabilities.Effective) > 0 || len(st.App().Spec.Process.Capabilities.Bounding) == 0 {
		t.Errorf("a user has capabilities: %+v %v", st.App().Spec.Process.Capabilities, err)
	}
}

func TestBundle(t *testing.T) {
	t.Parallel()
	good := `{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"args":["a"],"cwd":"/","user":{"uid":5,"gid":6}},"hostname":"h",
	 "mounts":[{"destination":"/data","type":"bind","source":"data","options":["rbind","ro"]},{"destination":"/proc","type":"proc","source":"proc"}],
	 "annotations":{"dev.gvisor.flag.network":"host"},"linux":{"resources":{"memory":{"limit":100000000}}}}`
	write := func(text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	load := func(dir string) (*setup.Setup, error) {
		return FromManifest(manifest(func(s *desired.Spec) { s.Root = desired.Root{Bundle: dir}; s.Command = nil }), nil, nil)
	}
	dir := write(good)
	st, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if st.App().Root.Path != dir+"/rootfs" || len(st.App().Volumes) != 1 || st.App().Volumes[0].Path != dir+"/data" || !st.App().Volumes[0].ReadOnly || st.Limits.Memory != 100000000 {
		t.Errorf("%+v", st)
	}
	if len(st.App().Spec.Annotations) > 0 {
		t.Error("annotations are passed on")
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"hooks":      {`"hostname":"h"`, `"hooks":{"startContainer":[{"path":"bin/x"}]}`, "hooks.startContainer[0].path: expected an absolute path"},
		"devices":    {`"resources"`, `"devices":[{"path":"/dev/sda","type":"b","major":8,"minor":0}],"resources"`, "linux.devices[0].path: not supported"},
		"namespaces": {`"resources"`, `"namespaces":[{"type":"network","path":"/proc/1/ns/net"}],"resources"`, "linux.namespaces[0].path: not supported"},
		"mappings":   {`"resources"`, `"uidMappings":[{"containerID":0,"hostID":0,"size":1}],"resources"`, "linux.uidMappings[0].size: not supported"},
		"dot dot":    {`"destination":"/data"`, `"destination":"/../data"`, "destination"},
		"no command": {`"args":["a"]`, `"args":[]`, "process.args"},
		"unknown":    {`"hostname":"h"`, `"hostnam":"h"`, "unknown field"},
		"not JSON":   {`"hostname"`, `hostname`, "config.json"},
	} {
		_, err := load(write(strings.Replace(good, c.old, c.new, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) || !operation.Permanent(err) {
			t.Errorf("%s: %v, expected a permanent error with %q", name, err, c.want)
		}
	}
	// Not followed, not waited for.
	link := t.TempDir()
	if err := errors.Join(os.Symlink("/etc/passwd", filepath.Join(link, "config.json"))); err != nil {
		t.Fatal(err)
	}
	if _, err := load(link); err == nil || strings.Contains(err.Error(), "root:") {
		t.Errorf("a link: %v", err)
	}
	fifo := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(fifo, "config.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(fifo); err == nil {
		t.Error("a fifo is read")
	}
}
