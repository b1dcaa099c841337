// SPDX-License-Identifier: Apache-2.0

package rootimage

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/imagetest"
	"sandboxctl.dev/launcher/image/puller"
)

// A program that keeps running sees the store that there is now, whatever became of the
// one before.
func TestImages(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"moved":   func(dir string) error { return os.Rename(dir, dir+".old") },
		"emptied": func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) },
		"replaced by link": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir+".new", 0o700), os.Symlink(dir+".new", dir))
		},
		"without its references": func(dir string) error { return os.RemoveAll(dir + "/refs") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			images := &Images{State: state}
			const ref = "local:a"
			if got := images.Find(ref); got != "" {
				t.Errorf("without a store: %q", got)
			}
			if _, err := images.Open(t.Context(), &desired.ImageRoot{Ref: ref}, digest); err == nil {
				t.Error("opened without a store")
			}
			first := importImage(t, state, ref)
			held, err := images.Open(t.Context(), &desired.ImageRoot{Ref: ref}, first)
			if got := images.Find(ref); err != nil || got != first {
				t.Fatalf("%q, expected %q; %v", got, first, err)
			}
			defer held.Close()
			if err := lose(filepath.Join(state, image.Directory)); err != nil {
				t.Fatal(err)
			}
			if got := images.Find(ref); got != "" {
				t.Errorf("lost, and found %q", got)
			}
			again := importImage(t, state, ref)
			if got := images.Find(ref); got != again {
				t.Errorf("%q, expected %q", got, again)
			}
			img, err := images.Open(t.Context(), &desired.ImageRoot{Ref: ref}, again)
			if err != nil {
				t.Fatal(err)
			}
			img.Close()
			// What was taken before can be used to its end.
			if _, err := held.ReadFile("f", 10); err != nil {
				t.Error(err)
			}
		})
	}
}

func importImage(t *testing.T, state, ref string) (digest string) {
	t.Helper()
	store, err := image.OpenStore(state)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	img, err := puller.New(store, puller.Options{}).Import(t.Context(), ref, bytes.NewReader(imagetest.Tar(imagetest.File("f", "f"))), image.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	return img.Digest
}
