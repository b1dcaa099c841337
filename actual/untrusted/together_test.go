// SPDX-License-Identifier: Apache-2.0

package untrusted

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// Several may remove the same tree: what another one has taken is no error of either.
func TestRemoveTogether(t *testing.T) {
	t.Parallel()
	for range 20 {
		dir := t.TempDir()
		for _, p := range []string{"x/a/b/c", "x/a/d", "x/e/f", "x/g"} {
			at := filepath.Join(dir, p)
			if err := os.MkdirAll(at, 0o700); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				if err := os.WriteFile(filepath.Join(at, strconv.Itoa(i)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if more, err := NewRemover(int(d.Fd()), 1<<20).Remove("x"); more || err != nil {
					t.Errorf("more %v: %v", more, err)
				}
			})
		}
		all.Wait()
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if n.Name() == "x" {
				t.Error("x is left")
			}
		}
	}
}
