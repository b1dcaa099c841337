// SPDX-License-Identifier: Apache-2.0

package freshdir

import (
	"errors"
	"os"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A directory that can't be read is not taken for an empty one, which is given away or removed.
func TestEmpty(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/d"
	must(t, os.Mkdir(path, 0o755))
	dir, err := os.Open(path)
	must(t, err)
	defer dir.Close()
	if empty, err := Empty(dir); !empty || err != nil {
		t.Errorf("%t %v", empty, err)
	}
	must(t, os.WriteFile(path+"/f", nil, 0o600))
	if empty, err := Empty(dir); empty || err != nil {
		t.Errorf("with a file: %t %v", empty, err)
	}
	must(t, os.RemoveAll(path))
	if empty, err := Empty(dir); empty || err == nil {
		t.Errorf("that can't be read: %t %v", empty, err)
	}
}

// The root of a new file system is fresh, although mkfs has put lost+found there. One in which
// something was found, or that is somebody's directory of that name, is not.
func TestFresh(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(path string) error
		want bool
	}{
		"nothing": {func(string) error { return nil }, true},
		"mkfs":    {func(p string) error { return os.Mkdir(p+"/lost+found", 0o700) }, true},
		"found":   {func(p string) error { return os.MkdirAll(p+"/lost+found/#12", 0o700) }, false},
		"beside a file": {func(p string) error {
			return errors.Join(os.Mkdir(p+"/lost+found", 0o700), os.WriteFile(p+"/f", nil, 0o600))
		}, false},
		"somebody's": {func(p string) error {
			return errors.Join(os.Mkdir(p+"/lost+found", 0o700), os.Chown(p+"/lost+found", 5, 5))
		}, false},
		"that others may use": {func(p string) error {
			return errors.Join(os.Mkdir(p+"/lost+found", 0o700), os.Chmod(p+"/lost+found", 0o755))
		}, false},
		"a file":       {func(p string) error { return os.WriteFile(p+"/lost+found", nil, 0o700) }, false},
		"a link":       {func(p string) error { return os.Symlink("/", p+"/lost+found") }, false},
		"another name": {func(p string) error { return os.Mkdir(p+"/lost", 0o700) }, false},
	} {
		path := t.TempDir()
		must(t, c.make(path))
		dir, err := os.Open(path)
		must(t, err)
		if fresh, err := Is(dir); fresh != c.want || err != nil {
			t.Errorf("%s: %t %v", name, fresh, err)
		}
		dir.Close()
	}
}
