// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
)

func hostPolicy(t *testing.T, lines string) *hostpolicy.Policy {
	t.Helper()
	p, problems := hostpolicy.Decode("policy.yaml", []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\n"+lines))
	if p == nil {
		t.Fatal(problems)
	}
	return p
}

// What is in a bundle is judged as what is in a manifest.
func TestBundlePolicy(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "b")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const good = `{"root":{"path":"rootfs"},"process":{"args":["a"],"cwd":"/","user":{"uid":5,"gid":6},"capabilities":{"bounding":["CAP_CHOWN"]}},
	 "mounts":[{"destination":"/data","type":"bind","source":"data"}]}`
	bundles := fmt.Sprintf("{bundles: [{path: %s, access: readWrite}], dirs: [{path: /roots, access: readOnly}]", dir)
	for name, c := range map[string]struct{ old, new, root, more, want string }{
		"good":                        {"", "", "}", "", ""},
		"not there":                   {"", "", "}", "root: {}", "spec.root.bundle: the host policy policy.yaml does not allow " + dir},
		"a mount of elsewhere":        {`"source":"data"`, `"source":"/etc"`, "}", "", dir + "/config.json: mounts[0].source: the host policy policy.yaml does not allow /etc; allowed: /srv/sandboxctl"},
		"a mount that leads out":      {`"source":"data"`, `"source":"../../etc"`, "}", "", "mounts[0].source: the host policy policy.yaml does not allow " + filepath.Dir(filepath.Dir(dir)) + "/etc"},
		"a mount of what is allowed":  {`"source":"data"`, `"source":"/vol/x"`, "}", "hostPaths: [{path: /vol, access: readWrite}]", ""},
		"a mount of what may be read": {`"source":"data"`, `"source":"/vol/x"`, "}", "hostPaths: [{path: /vol, access: readOnly}]", "mounts[0].source: the host policy policy.yaml allows /vol to be read only"},
		"a mount that is read":        {`"source":"data"`, `"source":"/vol/x","options":["ro"]`, "}", "hostPaths: [{path: /vol, access: readOnly}]", ""},
		"a root elsewhere":            {`"rootfs"`, `"/"`, "}", "", "root.path: the host policy policy.yaml does not allow /; allowed: /roots (read-only)"},
		"a root that leads out":       {`"rootfs"`, `"../.."`, "}", "", "root.path: the host policy policy.yaml does not allow " + filepath.Dir(top)},
		"a root that is allowed":      {`"rootfs"`, `"/roots/x"`, "}", "", ""},
		"a capability":                {"CAP_CHOWN", "CAP_SYS_ADMIN", "}", "", `process.capabilities: the host policy (policy.yaml) does not allow "CAP_SYS_ADMIN"`},
		"a capability that is":        {"CAP_CHOWN", "CAP_SYS_ADMIN", "}", "capabilities: [SYS_ADMIN]", ""},
		"root of the sandbox":         {`"uid":5`, `"uid":0`, "}", "rootUser: false", "process.user: the host policy (policy.yaml) does not allow"},
		"not root":                    {"", "", "}", "rootUser: false", ""},
		"hooks":                       {`"mounts"`, `"hooks":{"poststop":[{"path":"/bin/x"}]},"mounts"`, "}", "", "hooks: they run as root on the host, which the host policy (policy.yaml) does not allow"},
		"hooks that may":              {`"mounts"`, `"hooks":{"poststop":[{"path":"/bin/x"}]},"mounts"`, ", hooks: true}", "", ""},
		"limits":                      {`"mounts"`, `"linux":{"resources":{"memory":{"limit":67108864},"pids":{"limit":100}}},"mounts"`, "}", "", ""},
		"memory":                      {`"mounts"`, `"linux":{"resources":{"memory":{"limit":2147483648}}},"mounts"`, "}", "maxResources: {memory: 1Gi}", "linux.resources.memory: the host policy policy.yaml allows at most 1Gi"},
		"built-in most":               {`"mounts"`, `"linux":{"resources":{"pids":{"limit":8193}}},"mounts"`, "}", "", "linux.resources.pids: the host policy policy.yaml allows at most 8192"},
		"processors":                  {`"mounts"`, `"linux":{"resources":{"cpu":{"quota":300000,"period":100000}}},"mounts"`, "}", "maxResources: {cpu: 2}", "linux.resources.cpu: the host policy policy.yaml allows at most 2"},
		"hooks in the sandbox":        {`"mounts"`, `"hooks":{"startContainer":[{"path":"/bin/x"}]},"mounts"`, "}", "", ""},
	} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(strings.Replace(good, c.old, c.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		policy := "root: " + bundles + c.root + "\n" + c.more
		if strings.HasPrefix(c.more, "root:") {
			policy = ""
		}
		_, err := FromManifest(manifest(func(s *desired.Spec) { s.Root = desired.Root{Bundle: dir}; s.Command = nil }), hostPolicy(t, policy), nil)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !operation.Permanent(err)):
			t.Errorf("%s: %v, expected a permanent error with %q", name, err, c.want)
		}
	}
	// Who may write above it could put another one there between two looks.
	if err := os.Chmod(top, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := FromManifest(manifest(func(s *desired.Spec) { s.Root = desired.Root{Bundle: dir}; s.Command = nil }), hostPolicy(t, "root: "+bundles+"}"), nil)
	if err == nil || !strings.Contains(err.Error(), "can be written by others (mode 0777)") {
		t.Errorf("a bundle that can be swapped: %v", err)
	}
}
