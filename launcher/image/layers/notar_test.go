// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/launcher/image/erofs"
	it "sandboxctl.dev/launcher/image/imagetest"
)

// unknown merges what nothing is known about, as an import does.
func unknown(t *testing.T, b []byte) error {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = New(erofs.NewWriter(target{f}), DefaultLimits).ApplyUnknown(context.Background(), bytes.NewReader(b))
	return err
}

// after is n zeros, and something else.
func after(n int, what string) []byte { return append(make([]byte, n), what...) }

// What begins with zeros looks like a tar that ends at once. A file system or a disk must
// not become an image without files.
func TestZerosAreNoTar(t *testing.T) {
	t.Parallel()
	f, _, err := merge(t, DefaultLimits, it.Tar(it.File("a", "a")))
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	file := it.Tar(it.File("a", "a"))
	for name, b := range map[string][]byte{
		"EROFS":                           image,
		"ext4":                            after(1024+56, "\x53\xef\x01\x00"),
		"ISO 9660":                        after(32<<10, "\x01CD001\x01"),
		"btrfs":                           after(64<<10+64, "_BHRfS_M"),
		"one byte behind the end":         after(1024, "x"),
		"one byte far behind the end":     append(after(5<<20, "x"), make([]byte, 1<<20)...),
		"an empty tar before another one": append(make([]byte, 10240), file...),
	} {
		for how, stored := range map[string]func([]byte) []byte{"plain": bytes.Clone, "gzip": it.Gzip, "zstd": it.Zstd} {
			blob := stored(b)
			if err := unknown(t, blob); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "no tar") {
				t.Errorf("%s, %s: %v", name, how, err)
			}
			// Also as a layer, the lowest or not.
			for _, lower := range [][][]byte{nil, {file}} {
				if _, _, err := merge(t, DefaultLimits, append(lower, blob)...); !errors.Is(err, ErrInvalid) {
					t.Errorf("%s, %s, above %d layers: %v", name, how, len(lower), err)
				}
			}
			// What was damaged on its way is fetched again.
			m := New(erofs.NewWriter(target{f}), DefaultLimits)
			if err := m.ApplyBlob(t.Context(), bytes.NewReader(blob), Expect{Digest: it.Digest(file)}); !errors.Is(err, ErrDigest) {
				t.Errorf("%s, %s, instead of another layer: %v", name, how, err)
			}
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "nothing, compressed with gzip": it.Gzip(nil), "nothing, compressed with zstd": it.Zstd([]byte{})} {
		if err := unknown(t, b); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "empty") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Tools write empty tars, and fill up what they write. GNU tar reads nothing behind the end
// of a tar either.
func TestEmptyTars(t *testing.T) {
	t.Parallel()
	file := it.Tar(it.File("a", "a"))
	for name, b := range map[string][]byte{
		"two blocks":                  it.Tar(),
		"a record of GNU tar":         make([]byte, 10240),
		"a large record":              make([]byte, 1<<20),
		"a file, and a large record":  append(bytes.Clone(file), make([]byte, 1<<20)...),
		"a file, and another tar":     append(bytes.Clone(file), it.Tar(it.File("b", "b"))...),
		"a file, and the buffer then": append(bytes.Clone(file), strings.Repeat("x", 5000)...),
	} {
		for how, stored := range map[string]func([]byte) []byte{"plain": bytes.Clone, "gzip": it.Gzip, "zstd": it.Zstd} {
			if err := unknown(t, stored(b)); err != nil {
				t.Errorf("%s, %s: %v", name, how, err)
			}
		}
	}
	// Registries have layers of no bytes at all.
	if _, m, err := merge(t, DefaultLimits, nil); err != nil || len(m.Root().Children) != 0 {
		t.Errorf("no bytes: %v", err)
	}
}

// Damage that shows behind the end of a tar, or before its beginning, is damage: who keeps
// such a layer has to know that it is worth nothing.
func TestDamageOutsideOfTar(t *testing.T) {
	t.Parallel()
	out, err := os.Create(filepath.Join(t.TempDir(), "image.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	layer := it.Tar(it.File("a", strings.Repeat("some text ", 300)))
	for name, blob := range map[string][]byte{"gzip": it.Gzip(layer), "zstd": it.Zstd(layer)} {
		for at := range blob {
			bad := bytes.Clone(blob)
			bad[at] ^= 0xff
			m := New(erofs.NewWriter(target{out}), DefaultLimits)
			err := m.ApplyBlob(t.Context(), bytes.NewReader(bad), Expect{Digest: it.Digest(blob), DiffID: it.Digest(layer)})
			if !errors.Is(err, ErrDigest) {
				t.Errorf("%s, byte %d of %d: %v", name, at, len(blob), err)
			}
		}
	}
}
