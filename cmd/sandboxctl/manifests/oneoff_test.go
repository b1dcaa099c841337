// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/cmd/sandboxctl/world"
)

// A file that is not, or not only, the manifest for the process any more stays as it is.
func TestRemoveFor(t *testing.T) {
	t.Parallel()
	ours, caller, err := (&oneoff.Options{Name: "web"}).Manifest()
	if err != nil {
		t.Fatal(err)
	}
	stranger := caller
	stranger.StartTime++
	plain := "apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: %s}\nspec: {root: {host: {}}, command: [sleep, infinity]}\n"
	other := func(name string) string { return fmt.Sprintf(plain, name) }
	v := verbs{&world.Host{Manifests: t.TempDir()}}
	file := filepath.Join(v.Manifests, "web.yaml")
	for what, text := range map[string]string{
		"another manifest":       other("web"),
		"one of another name":    other("db"),
		"more documents":         string(ours) + "---\n" + other("db"),
		"the same one twice":     string(ours) + "---\n" + string(ours),
		"one of another program": string(ours) + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web}\n",
		"no YAML":                string(ours) + "{",
		"nothing":                "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if removed, err := v.removeFor("web.yaml", "web", caller); removed || err != nil {
			t.Errorf("%s: removed %v, %v", what, removed, err)
		}
		if left, err := os.ReadFile(file); err != nil || string(left) != text {
			t.Errorf("%s: left is %q, %v", what, left, err)
		}
	}
	if err := os.WriteFile(file, ours, 0o600); err != nil {
		t.Fatal(err)
	}
	if removed, err := v.removeFor("web.yaml", "web", stranger); removed || err != nil {
		t.Errorf("for another process: removed %v, %v", removed, err)
	}
	if removed, err := v.removeFor("web.yaml", "web", caller); !removed || err != nil {
		t.Errorf("removed %v, %v", removed, err)
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there (%v)", err)
	}
	if removed, err := v.removeFor("web.yaml", "web", caller); removed || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a file that is gone: removed %v, %v", removed, err)
	}
}
