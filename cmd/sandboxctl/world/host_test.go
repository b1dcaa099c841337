// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/hostpolicy"
)

// What is sandboxctl's own is never shared, also where a link puts a part of it elsewhere.
func TestProtected(t *testing.T) {
	t.Parallel()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(p string) string { return filepath.Join(top, p) }
	for _, d := range []string{"state", "manifests", "big/images", "data", "tls"} {
		err = errors.Join(err, os.MkdirAll(at(d), 0o700))
	}
	if err := errors.Join(
		err, os.Symlink("../big/images", at("state/images")),
		os.WriteFile(at("policy.yaml"), fmt.Appendf(nil, "apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\nhostPaths: [{path: %q, access: readWrite}, {path: /etc, access: readWrite}]\n", top), 0o600),
		os.WriteFile(at("tls/registries.yaml"), nil, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	h := &Host{Manifests: at("manifests"), State: at("state"), Policy: at("policy.yaml")}
	policy, err := h.PolicyFile(&actual.DaemonInfo{Registries: at("tls/registries.yaml")}).Load()
	if err != nil {
		t.Fatal(err)
	}
	for path, shared := range map[string]bool{
		at("data"): true, at("state"): false, at("state/images"): false, at("manifests"): false, at("policy.yaml"): false,
		at("big/images"): false, at("big"): false, at("big/images/refs"): false, top: false,
		"/etc/ssl": true, "/etc/sandboxctl/registries.yaml": false, "/etc/sandboxctl": false,
		at("tls/registries.yaml"): false, at("tls"): false,
	} {
		if _, err := policy.AllowedRoot(hostpolicy.VolumePath, path, false); (err == nil) != shared {
			t.Errorf("%s: %v", path, err)
		}
	}
}
