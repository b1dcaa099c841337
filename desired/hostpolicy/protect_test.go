// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// The manifests directory may be a link that is swapped, as git-sync does: where it
// leads to now is never shared, also if the policy did not change.
func TestPolicyProtectsSwapped(t *testing.T) {
	t.Parallel()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file, link, current := filepath.Join(top, "policy.yaml"), filepath.Join(top, "manifests"), filepath.Join(top, "links", "current")
	rev := func(n string) string { return filepath.Join(top, "git", n) }
	err = errors.Join(
		os.MkdirAll(rev("1"), 0o755), os.MkdirAll(rev("2"), 0o755), os.Mkdir(filepath.Dir(current), 0o755),
		os.Symlink("links/current", link), os.Symlink("../git/1", current),
		os.WriteFile(file, []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\nhostPaths: [{path: "+top+", access: readWrite}]\n"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	f := NewFile(Options{Path: file, Protected: []string{link}})
	allowed := func(path string) (bool, string) {
		t.Helper()
		p, err := f.Load()
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.AllowedRoot(VolumePath, path, true)
		return err == nil, p.Digest()
	}
	first, before := allowed(rev("1"))
	other, same := allowed(rev("2"))
	if first || !other || before != same {
		t.Fatalf("where it leads to is allowed: %v, elsewhere: %v; digests %s and %s", first, other, before, same)
	}
	if err := errors.Join(os.Symlink(rev("2"), current+".new"), os.Rename(current+".new", current)); err != nil {
		t.Fatal(err)
	}
	if now, after := allowed(rev("2")); now || after == before {
		t.Errorf("swapped: where it leads to is allowed: %v; digests %s and %s", now, before, after)
	}
	if was, _ := allowed(rev("1")); !was {
		t.Error("where it led to before is refused")
	}
	// Nor is a link on the way: who could swap it would be the author of manifests.
	if on, _ := allowed(filepath.Dir(current)); on {
		t.Error("the directory of a link on the way is allowed")
	}
}
