// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/image/source"
)

// Who writes a caFile decides which registry is believed: no sandbox may, wherever the file is.
// It may read it.
func TestTrustedCertificates(t *testing.T) {
	t.Parallel()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(p string) string { return filepath.Join(top, p) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"etc", "shared/tls", "shared/real", "shared/other"} {
		must(os.MkdirAll(at(d), 0o700))
	}
	must(os.WriteFile(at("policy.yaml"), fmt.Appendf(nil, "apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\nhostPaths: [{path: %q, access: readWrite}]\n", top), 0o600))
	must(os.Symlink("../real/ca.pem", at("shared/tls/link.pem")))
	// As the puller takes it: both read the same fields.
	write := func(caFile string) {
		t.Helper()
		b, err := yaml.Marshal(map[string]source.Hosts{"registries": {"registry.example": {CAFile: caFile}, "docker.io": {Mirrors: []string{"mirror.example"}}}})
		must(err)
		must(os.WriteFile(at("etc/new"), b, 0o600))
		must(os.Rename(at("etc/new"), at("etc/registries.yaml")))
	}
	f := (&Host{Manifests: at("manifests"), State: at("state"), Policy: at("policy.yaml")}).PolicyFile(&actual.DaemonInfo{Registries: at("etc/registries.yaml")})
	digests := map[string]bool{}
	expect := func(what string, writable map[string]bool) {
		t.Helper()
		p, err := f.Load()
		must(err)
		digests[p.Digest()] = true
		for path, allowed := range writable {
			if _, err := p.AllowedRoot(hostpolicy.VolumePath, at(path), true); (err == nil) != allowed {
				t.Errorf("%s: %s to write: %v", what, path, err)
			}
			if _, err := p.AllowedRoot(hostpolicy.VolumePath, at(path), false); err != nil {
				t.Errorf("%s: %s to read: %v", what, path, err)
			}
		}
	}
	all := map[string]bool{"shared": true, "shared/tls": true, "shared/real": true, "shared/other": true}
	expect("no registries", all)
	write(at("shared/tls/ca.pem"))
	named := map[string]bool{"shared": false, "shared/tls": false, "shared/tls/ca.pem": false, "shared/real": true, "shared/other": true}
	expect("named", named)
	must(os.WriteFile(at("etc/registries.yaml"), []byte("registries: ["), 0o600))
	expect("it can't be read, and may come back", named)
	write(at("shared/tls/link.pem"))
	expect("a link", map[string]bool{"shared/tls": false, "shared/real": false, "shared/other": true})
	must(os.Remove(at("etc/registries.yaml")))
	expect("removed", all)
	// What it names is not known to a program that has never read it: nothing is allowed.
	must(os.WriteFile(at("etc/registries.yaml"), []byte("registries: ["), 0o600))
	fresh := (&Host{Manifests: at("manifests"), State: at("state"), Policy: at("policy.yaml")}).PolicyFile(&actual.DaemonInfo{Registries: at("etc/registries.yaml")})
	if p, err := fresh.Load(); err == nil || !strings.Contains(err.Error(), "find the files of certificates that no sandbox may write: read ") {
		t.Errorf("%v, %v", p, err)
	}
	// What was allowed before is judged again.
	if len(digests) != 3 {
		t.Errorf("%d digests of three policies", len(digests))
	}
}
