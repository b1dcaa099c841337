// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/desiredtest"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/yamldoc"
)

// Whatever is in a host policy: an error at a place in the file, or a policy that
// allows nothing but what is below a path that it names, never the whole host.
func FuzzPolicy(f *testing.F) {
	const head = "apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\n"
	for _, rest := range []string{
		"", "hostPaths: [{path: /srv/a, access: readOnly}, {path: /srv/a/b, access: readWrite}]\n", "hostPaths: [{path: /, access: readWrite}]\n",
		"hostPaths: [{path: /srv/.., access: readOnly}]\n", "hostPaths: [{path: srv, access: all}]\n", "root: {dirs: [], bundles: [], hooks: true, host: false}\n",
		"network: {host: true, netns: ['*', ..]}\n", "capabilities: [ALL, NOPE]\n", "maxResources: {cpu: 1, memory: 64Mi, pids: 64}\nmaxSandboxes: -1\n",
		"rootUser: no\nminHostID: 4294967295\n", "---\n", "hostPaths: &a []\nroot: {dirs: *a}\n", "fileAccess: [direct]\nplatforms: [kvm]\n",
	} {
		f.Add([]byte(head+rest), "/srv/a/b/c")
	}
	f.Fuzz(func(t *testing.T, b []byte, hostPath string) {
		b = b[:min(len(b), yamldoc.MaxFileBytes)]
		var p *Policy
		var ps []desired.Problem
		c := desiredtest.Measure(t, 5, func() { p, ps = Decode("policy.yaml", b) })
		if !c.Within(desiredtest.FuzzSlower) {
			t.Fatalf("%s and %d KiB for %d bytes", c.Time, c.Alloc>>10, len(b))
		}
		if (p == nil) != (len(ps) > 0) {
			t.Fatalf("%v %v", p, ps)
		}
		for _, p := range ps {
			if p.Line < 1 || p.Line > 1+bytes.Count(b, []byte{'\n'}) || p.Column < 1 || p.Message == "" {
				t.Fatalf("%+v", p)
			}
		}
		if p == nil {
			return
		}
		if errs := p.Validate(); len(errs) > 0 {
			t.Fatal(errs)
		}
		hostPath = filepath.Clean("/" + hostPath)
		for _, kind := range []string{VolumePath, DirPath, BundlePath} {
			root, err := p.AllowedRoot(kind, hostPath, true)
			if err == nil && (root == "/" || !pathWithin(hostPath, root) || find(p.list(kind), hostPath) == nil) {
				t.Fatalf("%s is below %q", hostPath, root)
			}
			if _, err := p.AllowedRoot(kind, "/", false); err == nil {
				t.Fatal("the whole host is allowed")
			}
		}
		sb := &desired.Sandbox{APIVersion: desired.APIVersion, Kind: desired.Kind, Metadata: desired.Metadata{Name: "web"}}
		sb.Spec.Root.Dir, sb.Spec.Command, sb.Spec.Network.Mode = hostPath, []string{"a"}, networks.Host
		desired.Default(sb)
		denied := p.Check(sb)
		if _, err := p.AllowedRoot(DirPath, hostPath, false); (err == nil) == hasField(denied, "spec.root.dir") || p.Network.Host == hasField(denied, "spec.network.mode") {
			t.Fatalf("%+v: %v", p, denied)
		}
	})
}

func hasField(errs []desired.FieldError, field string) bool {
	return slices.ContainsFunc(errs, func(e desired.FieldError) bool { return e.Field == field })
}
