// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk that is full refuses what takes room, in words that say so, and leaves nothing of it.
// What runs has its image, its volume and its values, and what is not needed any more can be
// removed, although each block that becomes free is taken at once.
func TestFullDiskStores(t *testing.T) {
	requireHost(t)
	for what, c := range map[string]struct {
		mount func(t *testing.T, at string)
		take  func(dir string, n int) error
	}{
		"tmpfs": {func(t *testing.T, at string) {
			t.Helper()
			must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "size=24m,mode=0700"))
		}, takeBytes},
		"tmpfs inodes": {func(t *testing.T, at string) {
			t.Helper()
			must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "size=64m,nr_inodes=400,mode=0700"))
		}, takeFiles},
		"ext4":        {func(t *testing.T, at string) { t.Helper(); ext4(t, at) }, takeBytes},
		"ext4 inodes": {func(t *testing.T, at string) { t.Helper(); ext4(t, at, "-N", "400") }, takeFiles},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "--resync", "1s")
			c.mount(t, w.state)
			w.layout(false)
			keep, docs := w.prefix+"-keep", w.prefix+"-docs"
			w.objects(docs, 1)
			w.put(keep, w.stored(keep, 1, docs))
			w.start()
			w.settle()
			before := w.twins()[keep]
			file := filepath.Join(w.state, "volumes", keep, "data", "file")
			must(t, os.WriteFile(file, []byte(strings.Repeat("kept", 1000)), 0o644))
			do := func(args ...string) string {
				t.Helper()
				out, err := w.run(args...)
				if err != nil {
					t.Fatalf("%v: %v\n%s", args, err, out)
				}
				return out
			}
			// What is not needed: an image, and volumes of some size.
			do("image", "pull", "-q", w.ref("v2"))
			archive := filepath.Join(w.dir, "keep.tar")
			do("volume", "backup", keep, archive)
			for _, n := range []string{"one", "two"} {
				do("volume", "restore", n, archive)
			}

			f := fill(w.state, c.take)
			end := sync.OnceFunc(f.end)
			defer end()
			<-f.full
			refused := func(args ...string) {
				t.Helper()
				out, err := w.run(args...)
				if err == nil || !strings.Contains(out, "no space left on device") && !strings.Contains(out, "not enough room") {
					t.Errorf("%v: %v\n%s", args, err, out)
				}
			}
			had := w.names()
			refused("volume", "restore", "three", archive)
			refused("image", "import", filepath.Join(w.dir, "rootfs"), "other:1")
			refused("volume", "backup", keep, filepath.Join(w.state, "half.tar"))
			if now := w.names(); now != had {
				t.Errorf("there was\n%s\nand is\n%s", had, now)
			}
			// To another disk there is room.
			again := filepath.Join(w.dir, "again.tar")
			do("volume", "backup", keep, again)
			first, err := os.ReadFile(archive)
			must(t, err)
			second, err := os.ReadFile(again)
			must(t, err)
			if string(first) != string(second) {
				t.Errorf("the backup has %d bytes, before it had %d", len(second), len(first))
			}

			// New values would need a start. What runs goes on, and it is told.
			w.objects(docs, 2)
			w.until("get says that the disk is full", func() error {
				out, err := w.run("get")
				if err != nil || !strings.Contains(out, "DiskPressure") {
					return fmt.Errorf("%v\n%s", err, out)
				}
				return nil
			})
			do("get", keep)

			// It takes no room to make room.
			do("volume", "rm", "one")
			do("image", "rm", w.ref("v2"))
			do("volume", "prune", "--yes")
			do("image", "prune", "--all")
			if left, err := os.ReadDir(filepath.Join(w.state, "volumes")); err != nil || len(left) != 1 || left[0].Name() != keep {
				t.Errorf("volumes: %v %v", left, err)
			}
			if images, err := filepath.Glob(filepath.Join(w.state, "images", "*.erofs")); err != nil || len(images) != 1 {
				t.Errorf("images: %v %v", images, err)
			}
			if now := w.twins()[keep]; now != before || !alive(&now.sentry) {
				t.Errorf("%s was %v and is %v\n%s", keep, before, now, w.tail())
			}
			end()
			must(t, os.RemoveAll(filepath.Join(w.state, "ballast")))
			w.until("it has the new values", func() error {
				out, err := w.run("exec", keep, "--", "/bin/busybox", "cat", "/conf/LEVEL", "/keys/key", "/data/file")
				if err != nil || out != "2secret 2"+strings.Repeat("kept", 1000) {
					return fmt.Errorf("%v\n%.300s", err, out)
				}
				return nil
			})
			w.settle()
		})
	}
}

// names are those in the stores and in the trash.
func (w *world) names() string {
	w.t.Helper()
	var all []string
	for _, pattern := range []string{"*.tar", ".sandboxctl-tmp*", "images/*", "images/*/*", "images/.sandboxctl-tmp*", "volumes/*", "volumes/*/*", "trash/*"} {
		m, err := filepath.Glob(filepath.Join(w.state, pattern))
		must(w.t, err)
		all = append(all, m...)
	}
	return strings.Join(all, "\n")
}
