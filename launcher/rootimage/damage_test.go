// SPDX-License-Identifier: Apache-2.0

package rootimage

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/imagetest"
)

// A start of an image that is damaged says so, and the image is in the store no more: the
// next pass has it fetched again. What can't be seen when it is opened is found when the
// start has failed.
func TestDamagedRoot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		suffix   string
		from, to string
		opens    bool
	}{
		"the configuration, in the middle": {".json", `"config": {`, `"config": [`, false},
		"users that no file has":           {".json", `"user": "web"`, `"user": 7`, false},
		"the file system":                  {".erofs", "\xe2\xe1\xf5\xe0", "\xe2\xe1\xf5\xe1", false},
		"a program":                        {".erofs", "a program", "a brokens", true},
		"a name":                           {".erofs", "start.sh", "start.s\x01", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, state := newStore(t)
			digest := imported(t, store, "local:a", imagetest.File("etc/passwd", "web:x:7:8::/:\n"), imagetest.File("bin/start.sh", strings.Repeat("a program ", 1000)))
			images := &Images{State: state}
			want := &desired.ImageRoot{Ref: "local:a"}
			path := filepath.Join(state, image.Directory, strings.TrimPrefix(digest, "sha256:")+c.suffix)
			b, err := os.ReadFile(path)
			if err != nil || !bytes.Contains(b, []byte(c.from)) {
				t.Fatalf("nothing to damage: %v", err)
			}
			if err := os.WriteFile(path, bytes.Replace(b, []byte(c.from), []byte(c.to), 1), 0o600); err != nil {
				t.Fatal(err)
			}
			if images.Find("local:a") != digest {
				t.Error("the damage is seen at a look: this tests nothing")
			}
			img, err := images.Open(t.Context(), want, digest)
			if (err == nil) != c.opens {
				t.Fatalf("opened: %v", err)
			}
			if c.opens {
				defer img.Close()
				err = img.Blame(t.Context(), operation.Permanentf("there is no program"))
				if err == nil || !strings.Contains(err.Error(), "there is no program") || !strings.Contains(err.Error(), "fetched again") {
					t.Errorf("the start's error is lost: %v", err)
				}
			}
			if !errors.Is(err, image.ErrDamaged) || operation.Permanent(err) {
				t.Errorf("%v, expected that the image is damaged, and another try", err)
			}
			if got := images.Find("local:a"); got != "" {
				t.Errorf("it is in the store: %s", got)
			}
			imported(t, store, "local:a", imagetest.File("etc/passwd", "web:x:7:8::/:\n"), imagetest.File("bin/start.sh", strings.Repeat("a program ", 1000)))
			again, err := images.Open(t.Context(), want, digest)
			if err != nil {
				t.Fatal(err)
			}
			again.Close()
		})
	}
}

// A start that fails for another reason keeps its error, and the image. It is read once
// for many failures.
func TestFailedStartKeepsImage(t *testing.T) {
	t.Parallel()
	store, state := newStore(t)
	images := &Images{State: state}
	digest := imported(t, store, "local:a", imagetest.File("etc/passwd", "web:x:7:8::/:\n"))
	img, err := images.Open(t.Context(), &desired.ImageRoot{Ref: "local:a"}, digest)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	failed := operation.Permanentf("there is no program")
	for range 3 {
		if err := img.Blame(t.Context(), failed); err != failed {
			t.Errorf("%v", err)
		}
		before := images.verified[digest]
		if before.at.IsZero() || before.damage != nil {
			t.Errorf("it was not read: %+v", before)
		}
		if err := img.Blame(t.Context(), failed); err != failed || images.verified[digest] != before {
			t.Errorf("it was read again: %v", err)
		}
	}
	if images.Find("local:a") != digest {
		t.Error("the image is gone")
	}
}

// A disk that damages all that it gets has no image fetched again at each start.
func TestDamagedAgain(t *testing.T) {
	t.Parallel()
	store, state := newStore(t)
	images := &Images{State: state}
	failed := errors.New("there is no program")
	for n, want := range []error{image.ErrDamaged, failed, failed} {
		digest := imported(t, store, "local:a", imagetest.File("etc/passwd", "web:x:7:8::/:\n"), imagetest.File("a", "a program"))
		path := filepath.Join(state, image.Directory, strings.TrimPrefix(digest, "sha256:")+".erofs")
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, bytes.Replace(b, []byte("a program"), []byte("a brokens"), 1), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		img, err := images.Open(t.Context(), &desired.ImageRoot{Ref: "local:a"}, digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := img.Blame(t.Context(), failed); !errors.Is(err, want) {
			t.Errorf("start %d: %v, expected %v", n, err, want)
		}
		img.Close()
		if found := images.Find("local:a") != ""; found != (want == failed) {
			t.Errorf("start %d: in the store: %t", n, found)
		}
	}
	// When it is due, the damage is found.
	for digest := range images.verified {
		images.verified[digest] = look{at: images.verified[digest].at.Add(-verifyEvery)}
		img, err := images.Open(t.Context(), &desired.ImageRoot{Ref: "local:a"}, digest)
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		if err := img.Blame(t.Context(), failed); !errors.Is(err, image.ErrDamaged) {
			t.Errorf("an hour later: %v", err)
		}
	}
}

// Many sandboxes start from one image. All of them are told that it is damaged, and try
// again, also those that fail when it has been fetched again: one that is not told may have
// failed for good.
func TestDamagedForMany(t *testing.T) {
	t.Parallel()
	store, state := newStore(t)
	images := &Images{State: state}
	entries := []imagetest.Entry{imagetest.File("etc/passwd", "web:x:7:8::/:\n"), imagetest.File("a", "a program")}
	digest := imported(t, store, "local:a", entries...)
	path := filepath.Join(state, image.Directory, strings.TrimPrefix(digest, "sha256:")+".erofs")
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, bytes.Replace(b, []byte("a program"), []byte("a brokens"), 1), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	opened := func() *hostfs.Image {
		img, err := images.Open(t.Context(), &desired.ImageRoot{Ref: "local:a"}, digest)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(img.Close)
		return img
	}
	failed := operation.Permanentf("there is no program")
	told := func(img *hostfs.Image) {
		t.Helper()
		if err := img.Blame(t.Context(), failed); !errors.Is(err, image.ErrDamaged) || operation.Permanent(err) {
			t.Errorf("%v, expected that the image is damaged", err)
		}
	}
	// All are open before the first look: it takes the image from the store.
	late, starts := opened(), []*hostfs.Image{opened(), opened(), opened(), opened()}
	var all sync.WaitGroup
	for _, img := range starts {
		all.Go(func() { told(img) })
	}
	all.Wait()
	told(late)
	imported(t, store, "local:a", entries...)
	told(late)
	if err := opened().Blame(t.Context(), failed); err != failed || images.Find("local:a") != digest {
		t.Errorf("the new image: %v", err)
	}
	// A start that is cancelled does not wait for the look of another one.
	images.reading <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	img := opened()
	time.AfterFunc(time.Millisecond, cancel)
	if err := img.Blame(ctx, failed); err != failed {
		t.Errorf("cancelled: %v", err)
	}
	<-images.reading
}
