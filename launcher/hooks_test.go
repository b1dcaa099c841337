// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/setup"
)

// What runs as root when a sandbox has ended is on its checksummed record, and the
// host policy of that moment allows it. A file in the state is not believed.
func TestOwedHooks(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	store, err := actual.OpenStore(filepath.Join(top, "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Claim("web"); err != nil {
		t.Fatal(err)
	}
	ran := filepath.Join(top, "ran")
	hooks := func(bundle string) json.RawMessage {
		b, err := json.Marshal(&setup.Hooks{Bundle: bundle, Hooks: &specs.Hooks{Poststop: []specs.Hook{
			{Path: "/bin/sh", Args: []string{"sh", "-c", "echo ran >> " + ran}, Env: []string{"PATH=/bin:/usr/bin"}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	policy := func(lines string) func() (*hostpolicy.Policy, error) {
		return func() (*hostpolicy.Policy, error) { return hostPolicy(t, lines), nil }
	}
	const bundles = "bundles: [{path: /srv/b, access: readOnly}]"
	allowed := policy("root: {hooks: true, " + bundles + "}")
	broken := errors.New("it is being written")
	file := filepath.Join(top, "state/sandboxes/web/hooks.json")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx     context.Context
		policy  func() (*hostpolicy.Policy, error)
		hooks   json.RawMessage
		file    func() error
		runs    bool
		kept    bool // on record, for the next time
		err     error
		warning string
	}{
		"none":              {policy: allowed},
		"owed":              {policy: allowed, hooks: hooks("/srv/b/x"), runs: true},
		"not any more":      {policy: policy("root: {" + bundles + "}"), hooks: hooks("/srv/b/x"), warning: "hooks: they run as root on the host"},
		"no policy file":    {policy: func() (*hostpolicy.Policy, error) { return hostpolicy.Default(), nil }, hooks: hooks("/srv/b/x"), warning: "hooks: they run as root"},
		"another bundle":    {policy: allowed, hooks: hooks("/srv/c"), warning: "does not allow /srv/c"},
		"broken policy":     {policy: func() (*hostpolicy.Policy, error) { return nil, broken }, hooks: hooks("/srv/b/x"), err: broken, kept: true},
		"interrupted":       {ctx: cancelled, policy: allowed, hooks: hooks("/srv/b/x"), err: context.Canceled, kept: true},
		"not understood":    {policy: allowed, hooks: json.RawMessage("{}"), warning: "can't be read"},
		"a file":            {policy: allowed, file: func() error { return os.WriteFile(file, hooks("/srv/b/x"), 0o600) }, warning: "nothing says who wrote it"},
		"a file and a hook": {policy: allowed, hooks: hooks("/srv/b/x"), file: func() error { return os.WriteFile(file, hooks("/srv/b/x"), 0o600) }, runs: true},
		"a link":            {policy: allowed, file: func() error { return os.Symlink("/etc/passwd", file) }, warning: "nothing says who wrote it"},
		"a directory":       {policy: allowed, file: func() error { return os.Mkdir(file, 0o700) }, warning: "nothing says who wrote it"},
	} {
		if c.file != nil {
			if err := c.file(); err != nil {
				t.Fatal(err)
			}
		}
		if c.ctx == nil {
			c.ctx = t.Context()
		}
		l := &Launcher{store: store, opts: Options{Policy: c.policy}}
		rec := &actual.Record{Name: "web", Containers: []actual.Container{{Name: actual.AppName, Hooks: c.hooks}}}
		err := l.afterEnd(c.ctx, rec)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v, expected %v", name, err, c.err)
		}
		said, _ := os.ReadFile(ran)
		if got := string(said); (got == "ran\n") != c.runs || c.kept != (len(rec.App().Hooks) > 0) {
			t.Errorf("%s: ran %q, on record %s", name, got, rec.App().Hooks)
		}
		if warnings := fmt.Sprint(rec.Warnings); (len(rec.Warnings) == 1) != (c.warning != "") || !strings.Contains(warnings, c.warning) {
			t.Errorf("%s: warnings %v, expected %q", name, warnings, c.warning)
		}
		if err := errors.Join(os.RemoveAll(ran), os.RemoveAll(file)); err != nil {
			t.Fatal(err)
		}
	}
}
