// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A directory that was made, and that can't be used, is removed: no group and no
// record knows it. One that was there before stays as it is.
func TestMakeLeavesNothing(t *testing.T) {
	t.Parallel()
	cpuset := []string{cpusetController} // plain directories have no such files: the step after mkdir fails
	for what, c := range map[string]struct {
		place Place
		there string // what exists before
		left  []string
	}{
		"own":              {Own("web", someUID), "sandboxctl/cpuset.cpus", []string{"sandboxctl"}},
		"own, parent made": {Own("web", someUID), "", []string{"sandboxctl"}}, // which all share
		"of a client":      {"a/b/c", "a/b/cpuset.cpus", []string{"a", "a/b"}},
		"at the root":      {"c", "", nil},
		"was there":        {"a/c", "a/c/keep", []string{"a", "a/c"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				write(t, root, f, "0\n")
			}
			if c.there != "" {
				at := filepath.Dir(filepath.Join(root, c.there))
				write(t, at, filepath.Base(c.there), "0\n")
				for d := at; d != root; d = filepath.Dir(d) {
					write(t, d, "cpuset.cpus", "0\n")
					if filepath.Base(c.there) == "keep" && d == at {
						continue
					}
					write(t, d, "cpuset.mems", "0\n")
				}
			}
			if d, err := makeAt(root, c.place, cpuset); err == nil {
				t.Fatalf("%s was made", d.path)
			}
			var left []string
			if err := filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
				if rel, _ := filepath.Rel(root, p); err == nil && e.IsDir() && p != root {
					left = append(left, rel)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(left, c.left) {
				t.Errorf("left: %v, expected %v", left, c.left)
			}
		})
	}
}
