// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/image"
)

// Each pass of the loop looks at every image. A program that was stopped while it had
// many of them alone, as `image prune` has, holds up none of the passes.
func TestManyHeldUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	var all []*image.Image
	for i := range 100 {
		img := put(t, s, fmt.Sprint("a", i), fmt.Sprint(i))
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
		all = append(all, img)
	}
	free := put(t, s, "free", "free")
	var trees []*os.File
	for _, img := range all {
		tree := must(os.Open(filepath.Join(dir, image.Directory, hexOf(img)+treeSuffix)))
		if err := unix.Flock(int(tree.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatal(err)
		}
		trees = append(trees, tree)
	}
	began := time.Now()
	for _, img := range all {
		if s.Has(img.Digest) {
			t.Errorf("%s is there for others", img.Digest)
		}
	}
	// To wait for each would take 10 s at least, and 100 s as long as for one that is opened.
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("a look takes %s", took)
	}
	if !s.Has(free.Digest) {
		t.Error("another image is not seen")
	}
	for _, tree := range trees {
		tree.Close()
	}
	if !s.Has(all[0].Digest) {
		t.Error("it is not seen when it is free again")
	}
}

// Images that are in use are free again while others are being removed.
func TestRemovedAlone(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Options{})
	used, unused := put(t, s, "used", "used"), put(t, s, "unused", "unused")
	if err := errors.Join(used.Close(), unused.Close()); err != nil {
		t.Fatal(err)
	}
	removed, _, err := s.Prune(t.Context(), everything, func() (map[string]bool, error) {
		if s.Has(used.Digest) {
			t.Error("nobody has it alone while the records are read")
		}
		return map[string]bool{used.Digest: true}, nil
	})
	if err != nil || len(removed) != 1 || removed[0] != unused.Digest {
		t.Errorf("removed %v, %v", removed, err)
	}
	if !s.Has(used.Digest) || s.Has(unused.Digest) {
		t.Error("another one was removed")
	}
}

// A state directory that others may write, or a store in it, is not used: they could have
// root write elsewhere, and others run their images.
func TestImagesRefuseShared(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(state string) error{
		"the state directory": func(s string) error { return os.Chmod(s, 0o777) },
		"with a sticky bit":   func(s string) error { return os.Chmod(s, 0o777|os.ModeSticky) },
		"its group":           func(s string) error { return os.Chmod(s, 0o770) },
		"another's":           func(s string) error { return os.Chown(s, 1000, 1000) },
		"the store":           func(s string) error { return os.Chmod(s+"/images", 0o777) },
		"another's store":     func(s string) error { return os.Chown(s+"/images", 1000, 1000) },
		"a link to another's": func(s string) error {
			return errors.Join(os.Rename(s+"/images", s+"/real"), os.Chmod(s+"/real", 0o777), os.Symlink("real", s+"/images"))
		},
	} {
		state := t.TempDir()
		open(t, state, Options{})
		if err := spoil(state); err != nil {
			t.Fatal(err)
		}
		if _, err := image.OpenStore(state); err == nil {
			t.Errorf("%s: opened", name)
		}
		if _, err := image.OpenStoreReadOnly(state); err == nil {
			t.Errorf("%s: opened to look at it", name)
		}
	}
	// Nothing is made where others may write.
	state := t.TempDir()
	if err := os.Chmod(state, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := image.OpenStore(state); err == nil {
		t.Error("made")
	}
	if left := must(os.ReadDir(state)); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
