// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"testing"

	"sandboxctl.dev/launcher/setup"
)

// Hooks of a manifest's bundle see nothing of the daemon but its search path, those
// of the container its environment.
func TestBundleHookEnvironment(t *testing.T) {
	t.Setenv("SANDBOXCTL_TEST_OF_HOOKS", "leaked")
	t.Setenv("PATH", "/the/path")
	h := &setup.Hooks{Env: []string{"FROM=container"}}
	for kind, want := range map[string]string{
		"prestart": "PATH=/the/path", "createRuntime": "PATH=/the/path", "createContainer": "FROM=container", "poststart": "PATH=/the/path", "poststop": "PATH=/the/path",
	} {
		if got := set(h, kind, nil, 0).Env; len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, expected %q", kind, got, want)
		}
	}
	t.Setenv("PATH", "")
	if got := set(h, "poststop", nil, 0).Env; len(got) != 1 || got[0] != setup.DefaultPath {
		t.Errorf("without one: %q", got)
	}
}
