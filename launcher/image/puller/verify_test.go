// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/image"
	it "sandboxctl.dev/launcher/image/imagetest"
)

// flip changes one byte of a file of an image.
func flip(path string, at int64) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if at < 0 {
		at += int64(len(b))
	}
	b[at] ^= 1
	return os.WriteFile(path, b, 0o600)
}

// Damage that no look at an image finds is found by reading it, and noted: the next pull
// fetches the image again, whatever the damage is.
func TestVerify(t *testing.T) {
	t.Parallel()
	const hole = 4 << 20
	sparse := it.Tar(it.Dir("etc/"), it.File("etc/passwd", "root:x:0:0\n"), it.File("large", strings.Repeat("\x00", hole)), it.File("z", "end"))
	replace := func(from, to string) func(path string) error {
		return func(path string) error {
			b, err := os.ReadFile(path + metaSuffix)
			if err == nil && !bytes.Contains(b, []byte(from)) {
				err = errors.New("nothing to damage")
			}
			if err != nil {
				return err
			}
			return os.WriteFile(path+metaSuffix, bytes.Replace(b, []byte(from), []byte(to), 1), 0o600)
		}
	}
	at := func(off int64) func(path string) error {
		return func(path string) error { return flip(path+treeSuffix, off) }
	}
	for name, damage := range map[string]func(path string) error{
		"the superblock":                    at(1024 + 48),
		"the content of a file":             at(4096),
		"what is behind the end of a file":  at(4096 + 4000),
		"a hole":                            at(1 << 20),
		"the last file":                     at(2*4096 + hole),
		"an inode or a directory":           at(-64),
		"the configuration, in the middle":  replace(`"config": {`, `"config": [`),
		"a value of the configuration":      replace(`"entries": `, `"entries": x`),
		"the checksum":                      replace(`"crc32c:`, `"crc32c:0`),
		"the length":                        replace(`"bytes": `, `"bytes": 1`),
		"the file is longer, and says that": func(p string) error { return os.Truncate(p+treeSuffix, 1<<30) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, Options{})
			ref := "archive:" + write(t, dir+"/a.tar", it.DockerArchive(nil, it.Config(conf, sparse), sparse))
			img := resolve(t, s, ref, "")
			img.Close()
			if err := s.Verify(t.Context(), img.Digest); err != nil {
				t.Fatalf("nothing is damaged: %v", err)
			}
			if err := damage(filepath.Join(dir, image.Directory, hexOf(img))); err != nil {
				t.Fatal(err)
			}
			for range 2 { // it is told again, and in the same words
				if err := s.Verify(t.Context(), img.Digest); !errors.Is(err, image.ErrDamaged) || strings.Count(err.Error(), "damaged") > 2 {
					t.Errorf("%v, expected that it is damaged", err)
				}
			}
			if _, err := s.Find(img.Digest); !errors.Is(err, image.ErrDamaged) || s.Has(img.Digest) {
				t.Errorf("it is in the store: %v", err)
			}
			if all := must(s.List()); len(all) != 1 || !strings.Contains(all[0].Problem, "damaged") || len(all[0].Refs) != 1 {
				t.Errorf("listed: %+v", all)
			}
			if left := must(s.Leftovers()); left.Pulls != 0 || left.Trees != 0 {
				t.Errorf("left: %+v", left)
			}
			if _, err := s.Resolve(t.Context(), Request{Ref: ref, Pull: imageref.PullNever}, nil); !errors.Is(err, image.ErrDamaged) {
				t.Errorf("it is mended, although nothing is to be fetched: %v", err)
			}
			again := resolve(t, s, ref, imageref.PullIfNotPresent)
			if content(t, again, "z") != "end" || again.Config.User != "web:web" || !s.Has(img.Digest) {
				t.Errorf("it is not mended: %+v", again)
			}
			again.Close()
			if err := s.Verify(t.Context(), img.Digest); err != nil {
				t.Errorf("the new one: %v", err)
			}
		})
	}
}

// An earlier version has written no checksums. Its images are not damaged: an upgrade would
// have all of them fetched again, and take those away that were imported. What makes no sense
// is damaged.
func TestVerifyWithoutChecksum(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	img := put(t, s, "a", "a")
	path := filepath.Join(dir, image.Directory, hexOf(img))
	b := must(os.ReadFile(path + metaSuffix))
	before := regexp.MustCompile(`\s*"checksum": "[^"]*",`).ReplaceAll(b, nil)
	if len(before) == len(b) {
		t.Fatal("there was none")
	}
	write(t, path+metaSuffix, before)
	for range 2 {
		if err := s.Verify(t.Context(), img.Digest); !errors.Is(err, image.ErrNoChecksum) || errors.Is(err, image.ErrDamaged) || !s.Has(img.Digest) {
			t.Errorf("%v, expected that it can't be said", err)
		}
	}
	if !bytes.Equal(must(os.ReadFile(path+metaSuffix)), before) {
		t.Error("it was changed")
	}
	if err := flip(path+treeSuffix, 1024); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), img.Digest); !errors.Is(err, image.ErrDamaged) || s.Has(img.Digest) {
		t.Errorf("%v, expected that it is damaged", err)
	}
}

// What a later version has written is there again after a way back and forth.
func TestVerifyLaterVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	img := put(t, s, "a", "a")
	path := filepath.Join(dir, image.Directory, hexOf(img)) + metaSuffix
	later := bytes.Replace(must(os.ReadFile(path)), []byte(`"version": 1`), []byte(`"version": 2`), 1)
	write(t, path, later)
	if err := s.Verify(t.Context(), img.Digest); !errors.Is(err, image.ErrDamaged) || s.Has(img.Digest) {
		t.Errorf("%v, expected that it can't be used", err)
	}
	if !bytes.Equal(must(os.ReadFile(path)), later) {
		t.Error("what a later version has written is gone")
	}
}

// A copy of the store has no holes, or others. It is no damage.
func TestVerifyCopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	img, err := s.Import(t.Context(), "local:a", bytes.NewReader(it.Tar(it.File("zeros", strings.Repeat("\x00", 3<<20+5)), it.File("f", "a"))), image.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	img.Close()
	tree := filepath.Join(dir, image.Directory, hexOf(img)) + treeSuffix
	whole := must(os.ReadFile(tree))
	for name, rewrite := range map[string]func(f *os.File) error{
		"no holes": func(f *os.File) error { _, err := f.Write(whole); return err },
		"more holes": func(f *os.File) error {
			for off := 0; off < len(whole); off += 4096 {
				if b := whole[off:min(off+4096, len(whole))]; strings.Trim(string(b), "\x00") != "" {
					if _, err := f.WriteAt(b, int64(off)); err != nil {
						return err
					}
				}
			}
			return f.Truncate(int64(len(whole)))
		},
	} {
		f, err := os.Create(tree)
		if err == nil {
			err = errors.Join(rewrite(f), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context(), img.Digest); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is being fetched or removed is not judged, nor is what can't be read to its end.
func TestVerifyBeside(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Options{})
	img := put(t, s, "a", "a")
	claim, err := s.Lock(t.Context(), img.Digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), img.Digest); !errors.Is(err, image.ErrInUse) {
		t.Errorf("beside a pull: %v", err)
	}
	if err := claim.End(false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	if err := s.Verify(ctx, img.Digest); !errors.Is(err, io.ErrClosedPipe) || !s.Has(img.Digest) {
		t.Errorf("interrupted: %v", err)
	}
	if err := s.Verify(t.Context(), it.Digest(nil)); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("no image: %v", err)
	}
	if left := must(s.Leftovers()); left.Pulls != 0 {
		t.Errorf("left: %+v", left)
	}
}
