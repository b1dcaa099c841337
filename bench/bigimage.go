// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"
)

// bigImage is an image that is always the same: as many files as images of that size have,
// most of them small and most bytes in a few large ones, which compress as text and
// programs do. It is written as an OCI layout, and as one tar of its tree.
type bigImage struct {
	rand  *rand.Rand
	words [1 << 13][]byte
	buf   []byte
	files int // so far
	// program is bin/busybox, so that a sandbox of the image has something to run.
	program []byte
}

// filesPerMiB is how many files the image has for each MiB.
const filesPerMiB = 20

// bigLayers are the layers: how each is compressed, and its part of the image.
var bigLayers = []struct {
	zstd bool
	part float64
}{{false, 0.35}, {true, 0.3}, {false, 0.2}, {true, 0.15}}

func newBigImage(busybox string) (*bigImage, error) {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	i := &bigImage{rand: rand.New(rand.NewPCG(1, 2)), buf: make([]byte, 256<<10), program: program}
	const letters = "etaoinsrhldcumfpgwybvkxjqz_./(){}=,\"\n 0123456789"
	for w := range i.words {
		word := make([]byte, 2+i.rand.IntN(9))
		for n := range word {
			word[n] = letters[int(float64(len(letters))*math.Pow(i.rand.Float64(), 2))]
		}
		i.words[w] = append(word, ' ')
	}
	return i, nil
}

// write writes an image of a size in MiB: the layout into a directory, the tar of the tree
// into a file.
func (i *bigImage) write(mib int, layout, tree string) (err error) {
	blobs := filepath.Join(layout, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	f, err := os.Create(tree)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered := bufio.NewWriterSize(f, 1<<20)
	whole := tar.NewWriter(buffered)
	var layers []any
	var diffIDs []string
	for n, l := range bigLayers {
		digest, size, diffID, err := i.layer(n, float64(mib)*l.part, l.zstd, blobs, whole)
		if err != nil {
			return err
		}
		layers = append(layers, descriptor("layer.v1.tar+"+map[bool]string{true: "zstd", false: "gzip"}[l.zstd], digest, size))
		diffIDs = append(diffIDs, diffID)
	}
	if err := errors.Join(whole.Close(), buffered.Flush()); err != nil {
		return err
	}
	return writeLayout(layout, blobs, layers, diffIDs)
}

func descriptor(kind, digest string, size int64) map[string]any {
	return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": digest, "size": size}
}

// writeLayout writes the documents of the layout.
func writeLayout(layout, blobs string, layers []any, diffIDs []string) error {
	put := func(kind string, v any) (map[string]any, error) {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		return descriptor(kind, "sha256:"+name, int64(len(b))), os.WriteFile(filepath.Join(blobs, name), b, 0o644)
	}
	config, err := put("config.v1+json", map[string]any{"os": "linux", "architecture": runtime.GOARCH, "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	if err != nil {
		return err
	}
	manifest, err := put("manifest.v1+json", map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers})
	if err != nil {
		return err
	}
	manifest["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "1"}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(layout, "index.json"), index, 0o644),
		os.WriteFile(filepath.Join(layout, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

// layer writes one layer to the directory of blobs, and its files to the tar of all.
func (i *bigImage) layer(n int, mib float64, withZstd bool, blobs string, whole *tar.Writer) (digest string, size int64, diffID string, err error) {
	f, err := os.CreateTemp(blobs, "layer")
	if err != nil {
		return "", 0, "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	stored, plain := &sum{w: f, h: sha256.New()}, sha256.New()
	var z io.WriteCloser = gzip.NewWriter(stored)
	if withZstd {
		if z, err = zstd.NewWriter(stored, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true)); err != nil {
			return "", 0, "", err
		}
	}
	buffered := bufio.NewWriterSize(io.MultiWriter(z, plain), 256<<10)
	t := tar.NewWriter(buffered)
	if err := i.fill(n, mib, bothTars{t, whole}); err != nil {
		return "", 0, "", err
	}
	if err := errors.Join(t.Close(), buffered.Flush(), z.Close()); err != nil {
		return "", 0, "", err
	}
	name := hex.EncodeToString(stored.h.Sum(nil))
	return "sha256:" + name, stored.n, "sha256:" + hex.EncodeToString(plain.Sum(nil)), os.Rename(f.Name(), filepath.Join(blobs, name))
}

// sum hashes and counts what is written.
type sum struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (s *sum) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.n += int64(n)
	s.h.Write(b[:n])
	return n, err
}

// bothTars gets every entry.
type bothTars [2]*tar.Writer

func (b bothTars) header(h tar.Header) error {
	h.ModTime = time.Unix(1_700_000_000, 0)
	h.Format = tar.FormatUSTAR
	other := h
	return errors.Join(b[0].WriteHeader(&h), b[1].WriteHeader(&other))
}

func (b bothTars) write(p []byte) error {
	for _, t := range b {
		if _, err := t.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// fill writes the files of a layer.
func (i *bigImage) fill(layer int, mib float64, out bothTars) error {
	if layer == 0 {
		if err := out.header(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Size: int64(len(i.program))}); err != nil {
			return err
		}
		if err := out.write(i.program); err != nil {
			return err
		}
	}
	sizes := make([]float64, int(mib*filesPerMiB))
	total := 0.0
	for n := range sizes {
		// Half of the files have less than 4 KiB, and the largest a hundredth of all bytes.
		sizes[n] = min(4000*math.Exp(2.2*i.rand.NormFloat64()), mib*(1<<20)/100)
		total += sizes[n]
	}
	for n, size := range sizes {
		if n%12 == 0 {
			if err := out.header(tar.Header{Typeflag: tar.TypeDir, Name: i.directory(layer, n), Mode: 0o755}); err != nil {
				return err
			}
		}
		if err := i.file(layer, n, int64(size*mib*(1<<20)/total), out); err != nil {
			return err
		}
	}
	return nil
}

func (i *bigImage) directory(layer, n int) string {
	return fmt.Sprintf("usr/lib/layer-%d/package-%d/directory-%d/", layer, n/240, n/12)
}

// file writes a file. One in twenty has a link beside it.
func (i *bigImage) file(layer, n int, size int64, out bothTars) error {
	name := fmt.Sprintf("%sfile-%d.so", i.directory(layer, n), n)
	if err := out.header(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	for kind := i.rand.IntN(10); size > 0; {
		b := i.buf[:min(size, int64(len(i.buf)))]
		i.content(kind, b)
		if err := out.write(b); err != nil {
			return err
		}
		size -= int64(len(b))
	}
	if i.files++; i.files%20 != 0 {
		return nil
	}
	return out.header(tar.Header{Typeflag: tar.TypeSymlink, Name: name + ".1", Linkname: filepath.Base(name), Mode: 0o777})
}

// content fills b with text, with words among numbers as programs have, or with what is
// compressed already.
func (i *bigImage) content(kind int, b []byte) {
	noise := map[bool]uint64{true: 0, false: 5}[kind < 4] // of 16: how often a number comes
	if kind == 9 {
		noise = 16
	}
	for at := 0; at < len(b); {
		r := i.rand.Uint64()
		if r&15 < noise {
			for k := 0; k < 7 && at < len(b); k++ {
				r >>= 8
				b[at] = byte(r)
				at++
			}
			continue
		}
		// Some words are more frequent than others, as in a language.
		w := (r >> 4) % (1 << 13)
		w = w * ((r >> 20) % (1 << 13)) >> 13
		at += copy(b[at:], i.words[w])
	}
}
