// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Files that go away one right after the other are told of together, whether they are
// removed or moved, alone or with their directory: each look that finds only some of
// them has the others wait.
func TestGoneTogether(t *testing.T) {
	t.Parallel()
	const n = 300
	each := func(top string, f func(p string) error) error {
		for i := range n {
			if err := f(filepath.Join(top, fmt.Sprintf("s%d.yaml", i))); err != nil {
				return err
			}
		}
		return nil
	}
	for what, take := range map[string]func(t *testing.T, top string) error{
		"removed": func(_ *testing.T, top string) error { return each(top, os.Remove) },
		"moved away": func(t *testing.T, top string) error {
			away := t.TempDir()
			return each(top, func(p string) error { return os.Rename(p, filepath.Join(away, filepath.Base(p))) })
		},
		"the whole directory": func(_ *testing.T, top string) error { return os.RemoveAll(filepath.Join(top, "sub")) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			top := t.TempDir()
			at := top
			if what == "the whole directory" {
				at = filepath.Join(top, "sub")
			}
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := each(at, func(p string) error { return os.WriteFile(p, []byte("#"), 0o644) }); err != nil {
				t.Fatal(err)
			}
			d := New(Options{Path: top, PollEvery: time.Hour})
			go func() {
				if err := d.Run(t.Context()); err != nil {
					t.Error(err)
				}
			}()
			<-d.Changes() // it watches
			began := time.Now()
			told := make(chan int)
			done := make(chan struct{})
			go func() {
				count, after := 0, done
				for {
					select {
					case <-d.Changes():
						if count++; after == nil {
							told <- count
							return
						}
					case <-after:
						// The last of them may have been told of already.
						after = nil
						last := filepath.Join(top, "last.yaml")
						if err := os.WriteFile(last, nil, 0o644); err != nil {
							t.Error(err)
						}
					}
				}
			}()
			if err := take(t, top); err != nil {
				t.Fatal(err)
			}
			close(done)
			got := <-told
			// What comes is told of at once: its directory's watch, the file, and what is
			// written to it, and the directory that goes with what is in it.
			if most := 4 + int(time.Since(began)/goneTogether); got > most {
				t.Errorf("%d files: told of %d times, expected at most %d", n, got, most)
			}
		})
	}
}
