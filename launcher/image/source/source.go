// SPDX-License-Identifier: Apache-2.0

// Package source reads images from where they are: a registry, a directory in the
// layout of OCI, or an archive. It writes nothing. What it reads comes from somebody who
// is not trusted: sizes are bounded, and manifests and configurations are compared with
// their digests. Layers are compared by their reader.
package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Errors. They are wrapped in what says more.
var (
	// ErrMissing says that there is no such image.
	ErrMissing = errors.New("no such image")
	// ErrInvalid says that what is there is not an image, or a broken one.
	ErrInvalid = errors.New("not a valid image")
	// ErrPlatform says that there is none for this host.
	ErrPlatform = errors.New("no image for this platform")
	// ErrUnauthorized says that the registry wants other credentials.
	ErrUnauthorized = errors.New("the registry denies access")
	// ErrUnreachable says that the registry does not answer, or not now.
	ErrUnreachable = errors.New("the registry can't be reached")
)

// Bounds of what is read into memory.
const (
	mostManifest = 4 << 20
	mostConfig   = 8 << 20
	mostLayers   = 512
	// mostNesting is how many indexes may lead to a manifest.
	mostNesting = 3
)

// Source is where one image is.
type Source interface {
	// Digest finds out what the reference means now.
	Digest(ctx context.Context) (string, error)
	// Describe reads manifest and configuration of the image. Digest comes before it.
	Describe(ctx context.Context) (*Image, error)
	// Open reads a layer as it is stored, from an offset on. The reader begins at the
	// offset that is returned, which is 0 where nothing can be resumed.
	Open(ctx context.Context, l Layer, offset int64) (io.ReadCloser, int64, error)
	// Remote says that layers are worth to be kept until the image is complete.
	Remote() bool
	Close() error
}

// Image is what a manifest and the configuration it names say.
type Image struct {
	Digest   string
	Platform string
	Config   v1.ConfigFile
	Layers   []Layer
}

// Layer is a layer as it is stored.
type Layer struct {
	// Digest is that of the stored bytes, empty if only DiffID is known.
	Digest string
	// DiffID is that of the tar.
	DiffID string
	// Size is that of the stored bytes.
	Size int64
	// path is where an archive has it.
	path string
}

// mostValues bounds a document. Each value of a list takes memory, "{}" about a hundred
// times its length.
const mostValues = 200_000

// decode decodes JSON into a value of the type.
func decode[T any](what string, b []byte) (out T, err error) {
	if n := values(b); n > mostValues {
		return out, fmt.Errorf("%w: %s has %d values, at most %d are read", ErrInvalid, what, n, mostValues)
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&out); err != nil {
		if bytes.HasPrefix(bytes.TrimSpace(b), []byte("<")) {
			return out, fmt.Errorf("%w: %s: it is a web page: has a proxy or a login page answered in the place of the registry?", ErrInvalid, what)
		}
		return out, fmt.Errorf("%w: %s: %w", ErrInvalid, what, err)
	}
	return out, nil
}

// values counts the values of a JSON document, or more: what separates them and what
// they begin with.
func values(b []byte) (n int) {
	inString := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			inString = !inString
		case inString && c == '\\':
			i++
		case !inString && (c == ',' || c == '{' || c == '['):
			n++
		}
	}
	return n
}

// digestOf is the digest of bytes.
func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// checkDigest refuses what is not a digest: it becomes a part of paths and addresses.
func checkDigest(h v1.Hash) (string, error) {
	b, err := hex.DecodeString(h.Hex)
	if err != nil || h.Algorithm != "sha256" || len(b) != sha256.Size || strings.ToLower(h.Hex) != h.Hex {
		return "", fmt.Errorf("%w: the digest %q is not one of sha256", ErrInvalid, h.String())
	}
	return h.String(), nil
}

// checkSum compares bytes with their descriptor.
func checkSum(what string, b []byte, digest string) error {
	if got := digestOf(b); got != digest {
		return fmt.Errorf("%w: the %s %s has the digest %s", ErrInvalid, what, digest, got)
	}
	return nil
}

// isIndex judges a document by its media type, or by what it has if it has none. What
// could be taken for either is refused: others would see another image under the digest
// (CVE-2021-41190).
func isIndex(mediaType types.MediaType, b []byte) (bool, error) {
	probe, err := decode[struct {
		MediaType types.MediaType `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
		Config    json.RawMessage `json:"config"`
	}]("manifest", b)
	if err != nil {
		return false, err
	}
	has := func(value json.RawMessage) bool { return value != nil && string(value) != "null" }
	index, image := has(probe.Manifests), has(probe.Layers) || has(probe.Config)
	for _, t := range []types.MediaType{mediaType, probe.MediaType} {
		index, image = index || t.IsIndex(), image || t.IsImage()
	}
	if index && image {
		return false, fmt.Errorf("%w: it is both a list of images and the manifest of one", ErrInvalid)
	}
	return index, nil
}

// fetch reads the document that a descriptor names.
type fetch func(ctx context.Context, d v1.Descriptor) ([]byte, error)

// choose follows indexes down to the manifest for this platform.
func choose(ctx context.Context, b []byte, mediaType types.MediaType, get fetch) (manifest []byte, err error) {
	for range mostNesting {
		several, err := isIndex(mediaType, b)
		if err != nil || !several {
			return b, err
		}
		index, err := decode[v1.IndexManifest]("index", b)
		if err != nil {
			return nil, err
		}
		d, err := forPlatform(index.Manifests)
		if err != nil {
			return nil, err
		}
		if b, err = get(ctx, d); err != nil {
			return nil, err
		}
		mediaType = d.MediaType
	}
	return nil, fmt.Errorf("%w: more than %d indexes lead to it", ErrInvalid, mostNesting)
}

// describe reads what a manifest says.
func describe(ctx context.Context, manifest []byte, get fetch) (*Image, error) {
	m, err := decode[v1.Manifest]("manifest", manifest)
	if err != nil {
		return nil, err
	}
	if m.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: its manifest has the version %d; push it again with a current tool", ErrInvalid, m.SchemaVersion)
	}
	b, err := get(ctx, m.Config)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	img := &Image{Digest: digestOf(manifest)}
	for _, l := range m.Layers {
		digest, err := checkDigest(l.Digest)
		if err != nil {
			return nil, err
		}
		if err := checkLayer(l); err != nil {
			return nil, err
		}
		img.Layers = append(img.Layers, Layer{Digest: digest, Size: l.Size})
	}
	return img, img.configure(b)
}

// checkLayer refuses what is not the layer of a file system.
func checkLayer(l v1.Descriptor) error {
	t := string(l.MediaType)
	switch {
	case strings.Contains(t, "encrypted"):
		return fmt.Errorf("%w: its layers are encrypted", ErrInvalid)
	case !l.MediaType.IsDistributable():
		return fmt.Errorf("%w: a layer of the type %s is not in the registry", ErrInvalid, t)
	case l.Size < 0:
		return fmt.Errorf("%w: a layer of %d bytes", ErrInvalid, l.Size)
	case t == "" || l.MediaType.IsLayer() || strings.Contains(t, ".tar"):
		return nil
	}
	return fmt.Errorf("%w: it has a layer of the type %q, which is not a file system; it may be an artifact and not an image", ErrInvalid, t)
}

// configure takes the configuration, and gives the layers the digests in it.
func (i *Image) configure(b []byte) (err error) {
	if i.Config, err = decode[v1.ConfigFile]("configuration", b); err != nil {
		return err
	}
	ids := i.Config.RootFS.DiffIDs
	switch {
	case len(i.Layers) == 0 && len(ids) == 0:
		// Such a configuration may be any document: it would be an empty image under its digest.
		return fmt.Errorf("%w: it has no layers; it may be an artifact and not an image", ErrInvalid)
	case len(i.Layers) > mostLayers:
		return fmt.Errorf("%w: it has %d layers, at most %d are taken", ErrInvalid, len(i.Layers), mostLayers)
	case len(ids) != len(i.Layers):
		return fmt.Errorf("%w: the manifest has %d layers, the configuration %d; it may be an artifact and not an image", ErrInvalid, len(i.Layers), len(ids))
	}
	for n := range i.Layers {
		if i.Layers[n].DiffID, err = checkDigest(ids[n]); err != nil {
			return err
		}
	}
	return i.checkPlatform()
}
