// SPDX-License-Identifier: Apache-2.0

package dirfd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A name is there still, or it is gone, whatever else has it by now.
func TestHasName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "a (deleted)", "a (deleted) (deleted)", "with\nline", "%", strings.Repeat("x", 255)} {
		for what, c := range map[string]struct {
			change func(path string) error
			want   bool
		}{
			"left alone": {func(string) error { return nil }, true},
			"linked":     {func(p string) error { return os.Link(p, filepath.Dir(p)+"/other") }, true},
			"renamed, then removed": {func(p string) error {
				other := strings.TrimSuffix(p, gone) // whose name is p then, as the kernel says it
				return errors.Join(os.Rename(p, other), os.Remove(other))
			}, false},
			"removed": {os.Remove, false},
			"renamed": {func(p string) error { return os.Rename(p, filepath.Dir(p)+"/other") }, false},
			"made again": {func(p string) error {
				return errors.Join(os.Link(p, filepath.Dir(p)+"/other"), os.Remove(p), os.Link(filepath.Dir(p)+"/other", p))
			}, false},
			"replaced": {func(p string) error {
				return errors.Join(os.WriteFile(filepath.Dir(p)+"/other", nil, 0o600), os.Rename(filepath.Dir(p)+"/other", p))
			}, false},
		} {
			path := filepath.Join(t.TempDir(), name)
			must(t, os.WriteFile(path, nil, 0o600))
			fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			must(t, err)
			must(t, c.change(path))
			want := c.want && !strings.HasSuffix(name, gone)
			if got, err := HasName(fd, name); err != nil || got != want {
				t.Errorf("%q, %s: %t, %v, expected %t", name, what, got, err, want)
			}
			must(t, unix.Close(fd))
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
