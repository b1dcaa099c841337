// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/image"
	it "sandboxctl.dev/launcher/image/imagetest"
)

// merged waits until n bytes of the image that is being made are written.
func merged(ctx context.Context, t *testing.T, state string, n int64) {
	for ctx.Err() == nil {
		all, err := filepath.Glob(filepath.Join(state, image.Directory, ".*"))
		if err != nil {
			t.Error(err)
		}
		for _, p := range all {
			if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Size() >= n {
				return
			}
		}
	}
	t.Errorf("the merge waits for what the registry gives when it has begun: %v", ctx.Err())
}

// A layer is merged while it comes: the registry gives the second half when the first one is
// in the image.
func TestMergeWhileFetched(t *testing.T) {
	t.Parallel()
	for name, stored := range map[string]func([]byte) []byte{"plain": bytes.Clone, "gzip": it.Gzip, "zstd": it.Zstd} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			layer := noise(4 << 20)
			blob := stored(layer)
			f := newFake(t)
			f.push(t, "web", "1", it.Config(nil, layer, lower), blob, lower)
			dir := t.TempDir()
			f.set(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, it.Digest(blob)) {
					return false
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
				_, err := w.Write(blob[:len(blob)/2])
				if err == nil {
					err = http.NewResponseController(w).Flush()
				}
				merged(r.Context(), t, dir, 1<<20)
				if err == nil {
					_, err = w.Write(blob[len(blob)/2:])
				}
				if err != nil {
					t.Error(err)
				}
				return true
			})
			img := resolve(t, open(t, dir, Options{}), f.host()+"/web:1", "")
			if content(t, img, "etc/passwd") != "root:x:0:0\n" {
				t.Error("it is not the image")
			}
			same(t, img, layer)
		})
	}
}

// same compares the file "noise" of an image with that of a layer.
func same(t *testing.T, img *image.Image, layer []byte) {
	t.Helper()
	b, err := img.ReadFile("noise", 64<<20)
	if err != nil || !bytes.Contains(layer, b) || len(b) == 0 {
		t.Errorf("the file is another one: %d bytes, %v", len(b), err)
	}
}

// What comes damaged once is fetched again, whatever the damage looks like, and whether or
// not some of it is in the image already. The image is the right one.
func TestDamagedOnTheWay(t *testing.T) {
	t.Parallel()
	for name, stored := range map[string]func([]byte) []byte{"plain": bytes.Clone, "gzip": it.Gzip, "zstd": it.Zstd} {
		for what, damage := range map[string]func(b []byte) []byte{
			"in the first bytes": func(b []byte) []byte { b[1] ^= 0xff; return b },
			"in the first entry": func(b []byte) []byte { copy(b[124:], "77777777777"); return b }, // the size of a plain one
			"in the middle":      func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			"at the end":         func(b []byte) []byte { b[len(b)-3] ^= 1; return b },
			"another layer":      func(b []byte) []byte { return append(bytes.Clone(lower), make([]byte, len(b)-len(lower))...) },
			"cut and other":      func(b []byte) []byte { return append(b[:len(b)/3], bytes.Repeat([]byte{7}, len(b)-len(b)/3)...) },
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				damaged(t, noise(300<<10), stored, damage, func(context.Context, string) {})
			})
		}
	}
	t.Run("when most of it is merged", func(t *testing.T) {
		t.Parallel()
		last := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
		damaged(t, noise(3<<20), bytes.Clone, last, func(ctx context.Context, state string) { merged(ctx, t, state, 1<<20) })
	})
}

// damaged pulls an image of which the registry gives a damaged layer once, the end of it
// when wait returns.
func damaged(t *testing.T, layer []byte, stored, damage func([]byte) []byte, wait func(ctx context.Context, state string)) {
	t.Helper()
	blob := stored(layer)
	f := newFake(t)
	f.push(t, "web", "1", it.Config(nil, lower, layer, lower), lower, blob, lower)
	dir := t.TempDir()
	bad := damage(bytes.Clone(blob))
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, it.Digest(blob)) || f.requests(it.Digest(blob)) > 1 {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(bad)))
		_, err := w.Write(bad[:len(bad)-10])
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		wait(r.Context(), dir)
		if err == nil {
			_, err = w.Write(bad[len(bad)-10:])
		}
		if err != nil {
			t.Error(err)
		}
		return true
	})
	s := open(t, dir, Options{})
	img := resolve(t, s, f.host()+"/web:1", "")
	same(t, img, layer)
	if n := f.requests(it.Digest(blob)); n != 2 {
		t.Errorf("it was asked for %d times", n)
	}
	img.Close()
	if err := s.Verify(t.Context(), img.Digest); err != nil {
		t.Error(err)
	}
	if left := must(s.Leftovers()); left.Pulls != 0 || left.Trees != 0 {
		t.Errorf("left: %+v", left)
	}
}

// A layer that an earlier pull has kept may be damaged since, also where no file of it is:
// the next try has the image, and not the same error again.
func TestKeptDamaged(t *testing.T) {
	t.Parallel()
	layer := it.Tar(it.File("noise", strings.Repeat("some noise ", 100)))
	for name, blob := range map[string][]byte{"plain": layer, "gzip": it.Gzip(layer), "zstd": it.Zstd(layer)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			digest := f.push(t, "web", "1", it.Config(nil, layer, lower), blob, lower)
			for _, at := range []int{0, 2, 3, 4, len(blob) / 2, len(blob) - 6, len(blob) - 1} {
				dir := t.TempDir()
				s := open(t, dir, Options{})
				bad := bytes.Clone(blob)
				bad[at] ^= 0xff
				write(t, filepath.Join(dir, image.Directory, "pulls", strings.TrimPrefix(digest, "sha256:"), "blob-"+hexDigits(blob)), bad)
				if _, err := s.Resolve(t.Context(), Request{Ref: f.host() + "/web:1"}, nil); err == nil {
					t.Errorf("byte %d: nobody has seen the damage", at)
				}
				img := resolve(t, s, f.host()+"/web:1", "")
				same(t, img, layer)
				img.Close()
			}
		})
	}
}

// The progress of a pull never says more than there is, counts what an earlier one has left
// from the start, and ends with all of it.
func TestProgress(t *testing.T) {
	t.Parallel()
	first, second, third := noise(1<<20), noise(2<<20), noise(3<<20)
	size := int64(len(first) + len(second) + len(third))
	for name, c := range map[string]struct {
		layers [][]byte
		files  map[string][]byte // that an earlier pull has left
		kept   int64
	}{
		"nothing is there":            {[][]byte{first, second, third}, nil, 0},
		"half of a layer":             {[][]byte{first, second, third}, map[string][]byte{"part-" + hexDigits(second): second[:1<<20]}, 1 << 20},
		"whole layers":                {[][]byte{first, second, third}, map[string][]byte{"blob-" + hexDigits(third): third, "blob-" + hexDigits(first): first}, int64(len(first) + len(third))},
		"all layers":                  {[][]byte{first, second, third}, map[string][]byte{"blob-" + hexDigits(third): third, "blob-" + hexDigits(first): first, "blob-" + hexDigits(second): second}, size},
		"a part that is too long":     {[][]byte{first, second, third}, map[string][]byte{"part-" + hexDigits(first): append(bytes.Clone(first), "more"...)}, int64(len(first))},
		"a part of something else":    {[][]byte{first, second, third}, map[string][]byte{"part-" + hexDigits(third): make([]byte, len(third))}, int64(len(third))},
		"a layer twice":               {[][]byte{first, second, first, first}, nil, 0},
		"a layer twice, and is there": {[][]byte{first, second, first}, map[string][]byte{"blob-" + hexDigits(first): first}, int64(len(first))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			digest := f.push(t, "web", "1", it.Config(nil, c.layers...), c.layers...)
			dir := t.TempDir()
			s := open(t, dir, Options{})
			for file, b := range c.files {
				write(t, filepath.Join(dir, image.Directory, "pulls", strings.TrimPrefix(digest, "sha256:"), file), b)
			}
			fetch, merge := int64(0), int64(0)
			seen := map[string]bool{}
			for _, l := range c.layers {
				merge += int64(len(l))
				if !seen[it.Digest(l)] {
					fetch += int64(len(l))
				}
				seen[it.Digest(l)] = true
			}
			var steps []image.Step
			img, err := s.Resolve(t.Context(), Request{Ref: f.host() + "/web:1"}, func(p image.Step) { steps = append(steps, p) })
			if err != nil {
				t.Fatal(err)
			}
			img.Close()
			began := false
			for _, p := range steps {
				if p.Done < 0 || p.Done > p.Total || p.Phase == image.Fetching && p.Total != fetch || p.Phase == image.Merging && p.Total != merge {
					t.Errorf("%+v: expected %d to fetch and %d to merge", p, fetch, merge)
				}
				if p.Total > 0 && !began && c.kept < fetch && (p.Phase != image.Fetching || p.Done != c.kept) {
					t.Errorf("it begins with %+v, expected %d", p, c.kept)
				}
				began = began || p.Total > 0
			}
			if last := steps[len(steps)-1]; last.Phase != image.Merging || last.Done != merge {
				t.Errorf("it ends with %+v", last)
			}
		})
	}
}

func hexDigits(b []byte) string { return strings.TrimPrefix(it.Digest(b), "sha256:") }

// A disk that is full ends a pull at once: the rest of what is fetched is of no use then.
func TestFullWhileFetched(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=12m,mode=700"); err != nil {
		t.Fatal(err) // run as root
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	layer := it.Tar(it.File("text", strings.Repeat("0123456789abcdef", 1<<20)))
	blob := append(it.Gzip(layer), it.Gzip(noise(1<<20))...)
	f := newFake(t)
	f.push(t, "web", "1", it.Config(nil, layer), blob)
	gone := make(chan struct{})
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, it.Digest(blob)) {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
		_, err := w.Write(blob[:len(blob)-1000])
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		if err != nil {
			t.Error(err)
		}
		<-r.Context().Done() // the rest never comes
		close(gone)
		return true
	})
	s := open(t, disk, Options{})
	if _, err := s.Resolve(t.Context(), Request{Ref: f.host() + "/web:1"}, nil); !errors.Is(err, image.ErrDiskFull) {
		t.Errorf("%v", err)
	}
	<-gone
}
