// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// container is a config.json that is in order, changed.
func container(change func(*specs.Spec)) *specs.Spec {
	c := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "/"},
		Process: &specs.Process{Args: []string{"a"}, Cwd: "/"},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}}},
	}
	if change != nil {
		change(c)
	}
	return c
}

func TestContainer(t *testing.T) {
	t.Parallel()
	st, err := FromContainer(container(func(c *specs.Spec) {
		c.Version = "1.3.0-rc.1"
		c.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_NET_RAW"}}
		c.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/a", Type: "c", Major: 10, Minor: 229}}
	}), "/")
	if err != nil || !st.RawSockets || len(st.App().Spec.Linux.Devices) != 1 {
		t.Errorf("%+v %v", st, err)
	}
	// Raw sockets of the host's network are the host's.
	st, err = FromContainer(container(func(c *specs.Spec) {
		c.Linux.Namespaces = nil
		c.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_NET_RAW"}}
	}), "/")
	if err != nil || st.RawSockets || !st.HostNetwork {
		t.Errorf("%+v %v", st, err)
	}
	for want, change := range map[string]func(*specs.Spec){
		"process.args":                  func(c *specs.Spec) { c.Process = nil },
		"root.path":                     func(c *specs.Spec) { c.Root = nil },
		"process.cwd":                   func(c *specs.Spec) { c.Process.Cwd = "a" },
		"ociVersion":                    func(c *specs.Spec) { c.Version = "invalid" },
		"expected 1.x.y, got \"2.0.0\"": func(c *specs.Spec) { c.Version = "2.0.0" },
		"hooks.startContainer":          func(c *specs.Spec) { c.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "a"}}} },
		"mounts[0].destination":         func(c *specs.Spec) { c.Mounts = []specs.Mount{{Destination: "/../a"}} },
		"mounts[0].source":              func(c *specs.Spec) { c.Mounts = []specs.Mount{{Destination: "/a", Type: "bind"}} },
		"linux.namespaces[1]":           func(c *specs.Spec) { c.Linux.Namespaces = append(c.Linux.Namespaces, c.Linux.Namespaces[0]) },
		"linux.rootfsPropagation":       func(c *specs.Spec) { c.Linux.RootfsPropagation = "sideways" },
		"linux.devices[0].path: expected a path": func(c *specs.Spec) {
			c.Linux.Devices = []specs.LinuxDevice{{Path: "/etc/a", Type: "c"}}
		},
		`mounts[0].type: expected bind or one of proc, sysfs, tmpfs, devpts, dev, cgroup, cgroup2, mqueue, got "nfs"`: func(c *specs.Spec) {
			c.Mounts = []specs.Mount{{Destination: "/a", Type: "nfs", Source: "server:/"}}
		},
		`process.capabilities.effective[1]: "CAP_FLY" is not a capability`: func(c *specs.Spec) {
			c.Process.Capabilities = &specs.LinuxCapabilities{Effective: []string{"CAP_KILL", "CAP_FLY"}}
		},
		"is a device of the host": func(c *specs.Spec) { c.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/vfio/1", Type: "c"}} },
		"linux.devices[0].type":   func(c *specs.Spec) { c.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/a", Type: "x"}} },
	} {
		if _, err := FromContainer(container(change), "/"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("expected %q, got %v", want, err)
		}
	}
}

func TestContainerNamespaces(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		typ  specs.LinuxNamespaceType
		path string
		want string // "" if it is taken
	}{
		{specs.PIDNamespace, "", ""},
		{specs.PIDNamespace, "/proc/self/ns/pid", ""},
		{specs.MountNamespace, "/proc/self/ns/mnt", ""},
		{specs.TimeNamespace, "/proc/self/ns/time", ""},
		{specs.UTSNamespace, "/proc/self/ns/cgroup", "/proc/self/ns/cgroup is not a uts namespace"},
		{specs.NetworkNamespace, "/proc/self/ns/pid", "is not a network namespace"},
		{specs.IPCNamespace, "ns/ipc", "expected an absolute path"},
		{specs.IPCNamespace, "/proc/self/status", "not on nsfs"},
		{specs.IPCNamespace, fifo, "not on nsfs"},
		{specs.IPCNamespace, "/nosuch", "no such file"},
		{"colour", "", `"colour" is not a kind of namespace`},
	} {
		err := checkNamespaces(&specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: c.typ, Path: c.path}}}})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %s: %v, expected %q", c.typ, c.path, err, c.want)
		}
	}
	if err := checkNamespaces(&specs.Spec{}); err != nil {
		t.Error(err)
	}
}
