// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/cmd/sandboxctl/world"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// policyFor allows everything of some directories, and no others: the default ones exist on
// some hosts only.
func policyFor(dirs ...string) string {
	var list strings.Builder
	for _, d := range dirs {
		fmt.Fprintf(&list, "{path: %q, access: readWrite}, ", d)
	}
	return "apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\nhostPaths: [" + list.String() + "]\nroot: {dirs: [], bundles: [], imagePaths: []}\n"
}

func TestCheckPolicy(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(top, "real"), 0o755))
	must(t, os.Symlink("real", filepath.Join(top, "link")))
	path := filepath.Join(top, "policy.yaml")
	say := func() string {
		var out, diag bytes.Buffer
		d := doctor{&world.Host{Stdout: &out, Stderr: &diag, Manifests: top + "/m", State: top + "/none", Policy: path}}
		var lines []string
		for _, f := range d.checkPolicy() {
			lines = append(lines, f.Level+" "+f.Message)
		}
		return strings.Join(lines, "\n") + diag.String()
	}
	if got := say(); !strings.HasPrefix(got, "error read host policy: open "+path+": no such file") {
		t.Error(got)
	}
	must(t, os.WriteFile(path, []byte(policyFor(top+"/real")), 0o644))
	if got := say(); got != "ok "+path {
		t.Error(got)
	}
	must(t, os.WriteFile(path, []byte(policyFor(top+"/link", top+"/missing")), 0o644))
	want := "ok " + path + "\nwarning " + top + "/link leads through a symbolic link, and nothing of it is shared; allow " + top + "/real\n" +
		"warning nothing can be shared of what it allows: lstat " + top + "/missing: no such file or directory"
	if got := say(); got != want {
		t.Errorf("%s\nexpected %s", got, want)
	}
}
