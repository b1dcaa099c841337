// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
)

// A host policy that does not allow a sandbox, or can't be read, is no reason to end
// an application that a daemon before has started; it is not started by this one.
// Only hooks are: nobody knows which of them have run.
func TestAdoptableDenied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for what, c := range map[string]struct {
		hooks string
		root  desired.Root
		want  bool
	}{
		"a view of the host":  {"", desired.Root{Host: &desired.HostRoot{}}, true},
		"a bundle":            {"", desired.Root{Bundle: dir}, true},
		"a bundle with hooks": {`,"hooks":{"poststop":[{"path":"/bin/true"}]}`, desired.Root{Bundle: dir}, false},
		"a bundle that went":  {"", desired.Root{Bundle: filepath.Join(dir, "gone")}, false},
	} {
		cfg := `{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"args":["/bin/x"],"cwd":"/","user":{"uid":0,"gid":0}}` + c.hooks + `}`
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(cfg), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := New(Options{Policy: func() (*hostpolicy.Policy, error) { return nil, errors.New("it is broken") }})
		if err != nil {
			t.Fatal(err)
		}
		sb := manifest(func(s *desired.Spec) {
			s.Root = c.root
			if c.root.Bundle != "" {
				s.Command = nil
			}
		})
		spec, err := desired.Canonical(sb)
		if err != nil {
			t.Fatal(err)
		}
		st, ok := l.adoptable(&actual.Record{Name: "web", Spec: spec, Sentry: &actual.Identity{PID: 2}})
		if st != nil || ok != c.want {
			t.Errorf("%s: %v %v, expected %v and no set-up", what, st, ok, c.want)
		}
	}
}
