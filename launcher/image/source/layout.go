// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"sandboxctl.dev/desired/imageref"
)

// layout is an image in the layout of OCI: a directory, or an archive of one.
type layout struct {
	files
	tag      string
	manifest []byte
}

// refName is the annotation of an index that has the tag.
const refName = "org.opencontainers.image.ref.name"

func blobPath(digest string) string {
	return "blobs/" + strings.Replace(digest, ":", "/", 1)
}

// Digest implements Source.
func (l *layout) Digest(ctx context.Context) (string, error) {
	b, err := read(l.files, "index.json", mostManifest)
	if err != nil {
		return "", fmt.Errorf("it is not an OCI layout: %w", err)
	}
	index, err := decode[v1.IndexManifest]("index.json", b)
	if err != nil {
		return "", err
	}
	if index.Manifests, err = l.tagged(index.Manifests); err != nil {
		return "", err
	}
	b, err = json.Marshal(index)
	if err != nil {
		return "", err
	}
	l.manifest, err = choose(ctx, b, "application/vnd.oci.image.index.v1+json", l.blob)
	return digestOf(l.manifest), err
}

// fullName is an annotation that docker writes beside the tag, which is not the whole name.
const fullName = "io.containerd.image.name"

// tagged are the descriptors of the image that the tag means: those of all platforms.
func (l *layout) tagged(all []v1.Descriptor) (out []v1.Descriptor, err error) {
	names := make([][]string, len(all))
	for i, d := range all {
		names[i] = []string{cmp.Or(d.Annotations[fullName], d.Annotations[refName])}
	}
	chosen, err := choice("layout", l.tag, names)
	for _, i := range chosen {
		out = append(out, all[i])
	}
	return out, err
}

// choice finds the images that a tag means, of which each has names. There must be one,
// but it may be there several times under the same name. Without a tag it is the only one.
func choice(what, tag string, all [][]string) (chosen []int, err error) {
	var names []string
	for i, of := range all {
		// An image without a name is one of several if others have names.
		meant := of
		if tag != "" {
			meant = slices.DeleteFunc(slices.Clone(of), func(n string) bool { return !means(n, tag) })
		} else if len(of) == 0 {
			meant = []string{""}
		}
		if len(meant) > 0 {
			chosen, names = append(chosen, i), append(names, meant[0])
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("%w: the %s has no image", ErrMissing, what)
	case len(chosen) == 0:
		return nil, fmt.Errorf("%w: the %s has no tag %q, but %s", ErrMissing, what, tag, orNone(tags(all)))
	case len(names) > 1:
		return nil, fmt.Errorf("%w: the %s has several images; add one of the tags to the reference: %s", imageref.ErrInvalid, what, orNone(tags(all)))
	}
	return chosen, nil
}

// means says whether a tag is a name or the end of one: "1", "web:1" and the whole of
// "registry.example/team/web:1".
func means(name, tag string) bool {
	return name == tag || strings.HasSuffix(name, ":"+tag) || strings.HasSuffix(name, "/"+tag)
}

// tags are what may be added to a reference, which has no slash behind the file.
func tags(all [][]string) (out []string) {
	for _, n := range slices.Concat(all...) {
		if n != "" {
			out = append(out, path.Base(n))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// blob reads a document of the layout.
func (l *layout) blob(_ context.Context, d v1.Descriptor) ([]byte, error) {
	digest, err := checkDigest(d.Digest)
	if err != nil {
		return nil, err
	}
	b, err := read(l.files, blobPath(digest), mostConfig)
	if err != nil {
		return nil, err
	}
	return b, checkSum("blob", b, digest)
}

// Describe implements Source.
func (l *layout) Describe(ctx context.Context) (*Image, error) {
	return describe(ctx, l.manifest, l.blob)
}

// Open implements Source.
func (l *layout) Open(_ context.Context, layer Layer, offset int64) (io.ReadCloser, int64, error) {
	return openLayer(l.files, blobPath(layer.Digest), offset)
}

// Remote implements Source.
func (l *layout) Remote() bool { return false }

// dockerArchive is an archive of "docker save" before version 25, and of "podman save".
// It has no manifest in the sense of a registry: the image is known by the digest of its
// configuration, which docker calls the image's ID.
type dockerArchive struct {
	*archive
	tag    string
	entry  dockerEntry
	config []byte
}

// dockerEntry is an image in manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Digest implements Source.
func (d *dockerArchive) Digest(context.Context) (string, error) {
	b, err := read(d.archive, "manifest.json", mostManifest)
	if err != nil {
		return "", err
	}
	all, err := decode[[]dockerEntry]("manifest.json", b)
	if err != nil {
		return "", err
	}
	if d.entry, err = d.tagged(all); err != nil {
		return "", err
	}
	d.config, err = read(d.archive, d.entry.Config, mostConfig)
	return digestOf(d.config), err
}

func (d *dockerArchive) tagged(all []dockerEntry) (dockerEntry, error) {
	names := make([][]string, len(all))
	for i, e := range all {
		names[i] = e.RepoTags
	}
	chosen, err := choice("archive", d.tag, names)
	switch {
	case err != nil:
		return dockerEntry{}, err
	case len(chosen) > 1:
		return dockerEntry{}, fmt.Errorf("%w: the archive has %d images of the same name", ErrInvalid, len(chosen))
	}
	return all[chosen[0]], nil
}

// Describe implements Source.
func (d *dockerArchive) Describe(context.Context) (*Image, error) {
	img := &Image{Digest: digestOf(d.config)}
	for _, name := range d.entry.Layers {
		f, err := d.open(name)
		if err != nil {
			return nil, err
		}
		img.Layers = append(img.Layers, Layer{Size: f.size, path: name})
	}
	return img, img.configure(d.config)
}

// Open implements Source.
func (d *dockerArchive) Open(_ context.Context, layer Layer, offset int64) (io.ReadCloser, int64, error) {
	return openLayer(d.archive, layer.path, offset)
}

// Remote implements Source.
func (d *dockerArchive) Remote() bool { return false }

// openFiles opens the source of a local reference.
func openFiles(ctx context.Context, r imageref.Reference, o Options) (Source, error) {
	at := where{beneath: o.Beneath, path: r.Path}
	if r.Kind == imageref.Layout {
		d, err := openDirectory(at)
		if err != nil {
			return nil, err
		}
		return &layout{files: d, tag: r.Tag}, nil
	}
	a, err := openArchive(ctx, at, o.Temp)
	if err != nil {
		return nil, err
	}
	switch {
	case a.has("index.json"):
		return &layout{files: a, tag: r.Tag}, nil
	case a.has("manifest.json"):
		return &dockerArchive{archive: a, tag: r.Tag}, nil
	}
	return nil, errors.Join(fmt.Errorf("%w: %s has neither index.json nor manifest.json; to make an image of a root file system use: sandboxctl image import", ErrInvalid, r.Path), a.Close())
}
