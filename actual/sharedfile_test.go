// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A file is the same as long as its path is of it, whatever is in it.
func TestFileReplaced(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change   func(file string) error
		replaced bool
	}{
		"nothing":     {func(string) error { return nil }, false},
		"written":     {func(f string) error { return os.WriteFile(f, []byte("new"), 0o600) }, false},
		"truncated":   {func(f string) error { return os.Truncate(f, 0) }, false},
		"mode":        {func(f string) error { return os.Chmod(f, 0o644) }, false},
		"renamed on":  {func(f string) error { return errors.Join(os.WriteFile(f+".new", nil, 0o600), os.Rename(f+".new", f)) }, true},
		"removed":     {os.Remove, true},
		"moved":       {func(f string) error { return os.Rename(f, f+".old") }, true},
		"a link":      {func(f string) error { return errors.Join(os.Rename(f, f+".old"), os.Symlink(f+".old", f)) }, true},
		"a directory": {func(f string) error { return errors.Join(os.Remove(f), os.Mkdir(f, 0o700)) }, true},
		"its directory": {func(f string) error {
			d := filepath.Dir(f)
			return errors.Join(os.Rename(d, d+".old"), os.WriteFile(d, nil, 0o600))
		}, true},
	} {
		file := filepath.Join(t.TempDir(), "d", "file")
		if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("old"), 0o600)); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil {
			t.Fatal(err)
		}
		shared := &SharedFile{Path: file, Device: st.Dev, Inode: st.Ino}
		// It stays allocated, as in a sandbox, so that no other one gets its number.
		open, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.change(file); err != nil {
			t.Fatal(err)
		}
		if got, err := shared.Replaced(); err != nil || got != c.replaced {
			t.Errorf("%s: %v %v, expected %v", name, got, err, c.replaced)
		}
		open.Close()
	}
}
