// SPDX-License-Identifier: Apache-2.0

package rootimage

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/imagetest"
	"sandboxctl.dev/launcher/image/puller"
)

// imported makes an image in a store.
func imported(t *testing.T, store *image.Store, ref string, entries ...imagetest.Entry) (digest string) {
	t.Helper()
	img, err := puller.New(store, puller.Options{}).Import(t.Context(), ref, bytes.NewReader(imagetest.Tar(entries...)), image.Config{User: "web", Env: []string{"A=b"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	return img.Digest
}

func newStore(t *testing.T) (store *image.Store, state string) {
	t.Helper()
	state = t.TempDir()
	store, err := image.OpenStore(state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store, state
}

// A start takes the image on record, whatever its reference means by now, and keeps it in
// the store for as long.
func TestOpen(t *testing.T) {
	t.Parallel()
	store, _ := newStore(t)
	first := imported(t, store, "local:a", imagetest.File("etc/passwd", "web:x:7:8::/:\n"), imagetest.File("etc/group", "web:x:8:\n"))
	second := imported(t, store, "local:a", imagetest.File("other", ""))
	want := &desired.ImageRoot{Ref: "local:a"}
	if got := Find(store, "local:a"); got != second {
		t.Errorf("%q, expected %q", got, second)
	}
	img, err := Open(store, want, first)
	if err != nil {
		t.Fatal(err)
	}
	if img.Digest != first || img.Ref != "local:a" || img.Config.User != "web" || string(img.Passwd) != "web:x:7:8::/:\n" || string(img.Group) != "web:x:8:\n" {
		t.Errorf("%+v", img.Image)
	}
	nobody := func() (map[string]bool, error) { return nil, nil }
	if err := store.Remove(t.Context(), first, nobody); !errors.Is(err, image.ErrInUse) {
		t.Errorf("removed while it is open: %v", err)
	}
	f, err := img.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img.Close()
	// What the sentry has keeps nothing in the store, and is usable to its end.
	if err := store.Remove(t.Context(), first, nobody); err != nil {
		t.Error(err)
	}
	if tree, err := imagetest.Tree(f); err != nil || len(tree) != 4 {
		t.Errorf("%v, %v", tree, err)
	}
	if _, err := Open(store, want, first); !errors.Is(err, image.ErrNotFound) || operation.Permanent(err) {
		t.Errorf("removed: %v", err)
	}
}

// What can't be a root is told with its field and its reference. What the image can never
// change is permanent, what a pull can mend is not.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	store, state := newStore(t)
	damage := func(digest string, change func(b []byte) []byte) {
		path := state + "/images/" + strings.TrimPrefix(digest, "sha256:") + ".erofs"
		b, err := os.ReadFile(path)
		if err == nil {
			err = errors.Join(os.Remove(path), os.WriteFile(path, change(b), 0o400))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cut := imported(t, store, "local:cut", imagetest.File("cut", strings.Repeat("x", 10_000)))
	damage(cut, func(b []byte) []byte { return b[:len(b)/2] })
	zero := imported(t, store, "local:zero", imagetest.File("zero", ""))
	damage(zero, func(b []byte) []byte { return make([]byte, len(b)) })
	for name, c := range map[string]struct {
		digest, says string
		permanent    bool
	}{
		"no digest":                           {"", "no digest", false},
		"no such digest":                      {digest, "not in the store", false},
		"a path":                              {"../../etc", "not a digest", false},
		"a file cut short":                    {cut, "damaged", false},
		"not EROFS":                           {zero, "read sha256:", false},
		"endless users":                       {imported(t, store, "local:b", imagetest.File("etc/passwd", strings.Repeat("x", 1<<20+1))), "read /etc/passwd of the image: it has more than", true},
		"users that are a directory":          {imported(t, store, "local:c", imagetest.Dir("etc/group")), "no regular file", true},
		"users that are a link to themselves": {imported(t, store, "local:d", imagetest.Symlink("etc/passwd", "passwd")), "read /etc/passwd", true},
	} {
		img, err := Open(store, &desired.ImageRoot{Ref: "local:x"}, c.digest)
		if err == nil {
			img.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "spec.root.image: ") || operation.Permanent(err) != c.permanent {
			t.Errorf("%s: %v, permanent %v", name, err, err != nil && operation.Permanent(err))
		}
	}
	// Nothing of a refused one is kept.
	if err := store.Remove(t.Context(), zero, func() (map[string]bool, error) { return nil, nil }); err != nil {
		t.Error(err)
	}
	// Users that a link leads to are those that it leads to inside of the image.
	d := imported(t, store, "local:e", imagetest.Symlink("etc/passwd", "/../../usr/users"), imagetest.File("usr/users", "u\n"))
	img, err := Open(store, &desired.ImageRoot{Ref: "local:e"}, d)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if string(img.Passwd) != "u\n" {
		t.Errorf("%q", img.Passwd)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	store, _ := newStore(t)
	d := imported(t, store, "local:team/a:1", imagetest.File("a", ""))
	for ref, want := range map[string]string{
		"local:team/a:1": d, d: d, "local:team/a": "", "local:none": "", digest: "", "": "", "no name": "", "../a": "", "docker.io/library/a@" + d: d, "a@" + digest: "",
	} {
		if got := Find(store, ref); got != want {
			t.Errorf("%q: %q, expected %q", ref, got, want)
		}
	}
}
