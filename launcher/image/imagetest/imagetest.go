// SPDX-License-Identifier: Apache-2.0

// Package imagetest makes images for tests, and reads what became of them: every nasty
// that a layer may have is written in Go, and no other program is needed.
package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/erofs/go-erofs"
	"github.com/klauspost/compress/zstd"
)

// Entry is an entry of a layer: a header, and the content of a regular file.
type Entry struct {
	tar.Header
	Content string
}

// File is a regular file.
func File(name, content string) Entry {
	return Entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content}
}

// Dir is a directory.
func Dir(name string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
}

// Symlink is a symbolic link.
func Symlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

// Link is a hard link.
func Link(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

// Special is a device or a fifo.
func Special(kind byte, name string, major, minor int64) Entry {
	return Entry{Header: tar.Header{Typeflag: kind, Name: name, Mode: 0o600, Devmajor: major, Devminor: minor}}
}

// With changes the header of an entry.
func (e Entry) With(change func(*tar.Header)) Entry {
	change(&e.Header)
	return e
}

// Tar is a layer.
func Tar(entries ...Entry) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if e.Typeflag == tar.TypeReg {
			e.Size = int64(len(e.Content))
		}
		if e.ModTime.IsZero() {
			e.ModTime = time.Unix(1_700_000_000, 0)
		}
		must(w.WriteHeader(&e.Header))
		_, err := io.WriteString(w, e.Content)
		must(err)
	}
	must(w.Close())
	return buf.Bytes()
}

func must(err error) {
	if err != nil {
		panic(err) //nolint:forbidigo // only tests link it
	}
}

// Gzip compresses a layer.
func Gzip(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(b)
	must(err)
	must(w.Close())
	return buf.Bytes()
}

// Zstd compresses a layer.
func Zstd(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	must(err)
	return w.EncodeAll(b, nil)
}

// Digest is that of bytes.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Config is a configuration for layers, as tars. more has further fields of its "config".
func Config(more map[string]any, layers ...[]byte) []byte {
	ids := []string{}
	for _, l := range layers {
		ids = append(ids, Digest(l))
	}
	b, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": runtime.GOARCH, "config": more,
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})
	must(err)
	return b
}

// DockerArchive is what "docker save" and "podman save" write.
func DockerArchive(tags []string, config []byte, layers ...[]byte) []byte {
	var entries []Entry
	var names []string
	for i, l := range layers {
		names = append(names, fmt.Sprintf("%d/layer.tar", i))
		entries = append(entries, File(names[i], string(l)))
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": tags, "Layers": names}})
	must(err)
	return Tar(append(entries, File("config.json", string(config)), File("manifest.json", string(manifest)))...)
}

// Blobs are the blobs of an OCI image by their digests, and the manifest's digest.
func Blobs(config []byte, blobs ...[]byte) (manifest string, all map[string][]byte) {
	all = map[string][]byte{}
	add := func(mediaType string, b []byte) map[string]any {
		all[Digest(b)] = b
		return map[string]any{"mediaType": mediaType, "digest": Digest(b), "size": len(b)}
	}
	layers := []any{}
	for _, b := range blobs {
		layers = append(layers, add("application/vnd.oci.image.layer.v1.tar", b))
	}
	m, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": add("application/vnd.oci.image.config.v1+json", config), "layers": layers,
	})
	must(err)
	add("", m)
	return Digest(m), all
}

// Layout writes an OCI layout with one image into a directory.
func Layout(dir, tag string, config []byte, blobs ...[]byte) (digest string) {
	digest, all := Blobs(config, blobs...)
	must(os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755))
	for d, b := range all {
		must(os.WriteFile(filepath.Join(dir, "blobs", strings.Replace(d, ":", "/", 1)), b, 0o644)) //nolint:forbidigo // it is the test's
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": len(all[digest]),
		"annotations": map[string]string{"org.opencontainers.image.ref.name": tag},
	}}})
	must(err)
	must(os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644)) //nolint:forbidigo // it is the test's
	return digest
}

// Tree reads an EROFS file. Each file is a line: type and mode, owner, links, size or
// target, the digest of its content.
func Tree(r io.ReaderAt) (map[string]string, error) {
	tree, err := erofs.Open(r)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	err = fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		out[p], err = describe(tree, p, d)
		return err
	})
	return out, err
}

func describe(tree fs.FS, p string, d fs.DirEntry) (string, error) {
	info, err := d.Info()
	if err != nil {
		return "", err
	}
	st := info.Sys().(*erofs.Stat)
	line := fmt.Sprintf("%v %d:%d links %d", info.Mode(), st.UID, st.GID, st.Nlink)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := tree.(fs.ReadLinkFS).ReadLink(p)
		return line + " -> " + target, err
	case info.Mode().IsRegular():
		f, err := tree.Open(p)
		if err != nil {
			return "", err
		}
		defer f.Close()
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err == nil && n != info.Size() {
			err = fmt.Errorf("%s has %d bytes instead of %d", p, n, info.Size())
		}
		return fmt.Sprintf("%s %d bytes %x", line, n, h.Sum(nil)[:4]), err
	}
	return line, nil
}

// TarOf is the tar of a directory.
func TarOf(dir string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	must(w.AddFS(os.DirFS(dir)))
	must(w.Close())
	return buf.Bytes()
}
