// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/erofs"
	"sandboxctl.dev/launcher/image/packer"
	"sandboxctl.dev/launcher/image/source"
)

// Import makes an image of a root file system, and gives it a reference of the form
// "local:NAME". The root is a tar, which may be compressed.
func (s *Puller) Import(ctx context.Context, ref string, root io.Reader, c image.Config, progress image.Progress) (*image.Image, error) {
	r, err := imageref.Normalize(ref)
	if err == nil && r.Kind != imageref.Local {
		err = fmt.Errorf("%w: %q: an imported image is called local:NAME", imageref.ErrInvalid, ref)
	}
	if err != nil {
		return nil, err
	}
	input, done := interruptible(ctx, root)
	defer done()
	img, err := s.importTree(ctx, input, c, &reporter{tell: progress})
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", ref, err)
	}
	img.Ref = r.String()
	if err := s.PutTag(img.Ref, img.Digest); err != nil {
		img.Close()
		return nil, err
	}
	return img, nil
}

// ImportDirectory is Import for a directory of the host. It follows no link in it, and
// leaves out other file systems.
func (s *Puller) ImportDirectory(ctx context.Context, ref, dir string, c image.Config, progress image.Progress) (*image.Image, error) {
	r, err := packer.Pack(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", ref, err)
	}
	defer r.Close()
	return s.Import(ctx, ref, r, c, progress)
}

// interruptible ends with the context, also while a read waits: who writes a pipe may be
// slow, or wait for ever. That read is abandoned then. One of a file does not wait.
func interruptible(ctx context.Context, r io.Reader) (from io.Reader, done func()) {
	if f, ok := r.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			return r, func() {}
		}
	}
	out, in := io.Pipe()
	stop := context.AfterFunc(ctx, func() { in.CloseWithError(context.Cause(ctx)) })
	go func() {
		_, err := io.CopyBuffer(in, r, make([]byte, 256<<10))
		in.CloseWithError(err)
	}()
	return out, func() {
		stop()
		_ = out.Close() // it never fails
	}
}

// checkRoot refuses what "docker save" and its like have written: an image in a file is
// easily taken for the root of one.
func checkRoot(root *erofs.Node) error {
	has := func(name string) bool { return root.Children[name].Node != nil }
	if has("oci-layout") && has("index.json") || has("manifest.json") && has("repositories") {
		return fmt.Errorf("%w: it is an archive or layout of an image, and not a root file system; use: sandboxctl image pull archive:FILE or oci:DIRECTORY", source.ErrInvalid)
	}
	return nil
}

func (s *Puller) importTree(ctx context.Context, root io.Reader, c image.Config, r *reporter) (img *image.Image, err error) {
	r.begin("", 0, 0, 0)
	t, err := s.begin()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.out.Discard()) }()
	diffID, err := t.merger.ApplyUnknown(ctx, counted{root, ctx, r})
	if err != nil {
		return nil, err
	}
	if err := checkRoot(t.merger.Root()); err != nil {
		return nil, err
	}
	i := image.Info{Platform: "linux/" + runtime.GOARCH, Layers: []string{diffID}, Config: c}
	digest, err := digestOfImport(i)
	if err != nil {
		return nil, err
	}
	p, err := s.Lock(ctx, digest, func() { r.phase(image.Waiting, digest) })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.End(false)) }()
	if img, err = s.Find(digest); !errors.Is(err, image.ErrNotFound) && !errors.Is(err, image.ErrDamaged) {
		return img, err
	}
	if err := t.commit(ctx, digest, i); err != nil {
		return nil, err
	}
	// The lock of what was just made is given back: it is taken as any other image is.
	if err := t.out.Discard(); err != nil {
		return nil, err
	}
	return s.Find(digest)
}

// digestOfImport names an image by all that is in it: what is imported again is the same.
func digestOfImport(i image.Info) (string, error) {
	b, err := json.Marshal(struct {
		Layers []string
		Config image.Config
	}{i.Layers, i.Config})
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:]), err
}
