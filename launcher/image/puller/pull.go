// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/erofs"
	"sandboxctl.dev/launcher/image/layers"
	"sandboxctl.dev/launcher/image/source"
)

// pull is the making of one image, by the process that has the claim to it.
type pull struct {
	*image.Claim
	store *Puller
}

// make makes the image. It is in the store when make returns nil.
func (p *pull) make(ctx context.Context, src source.Source, r *reporter) error {
	img, err := src.Describe(ctx)
	if err != nil {
		return err
	}
	total := int64(0)
	for _, l := range img.Layers {
		// It is a bound of what they become, and keeps the sum below from an overflow.
		if most := p.store.options.Limits.Bytes; l.Size < 0 || l.Size > most-total {
			return fmt.Errorf("%w: layers of more than %d MiB", layers.ErrLimit, most>>20)
		}
		total += l.Size
	}
	// The layers, and what they become: nobody says how much that is before it is there.
	need := total
	if src.Remote() {
		need += total - p.Kept()
	}
	if err := needRoom(p.store.Dir(), need); err != nil {
		return err
	}
	if src.Remote() {
		return p.fetchAndMerge(ctx, src, img, total, r)
	}
	r.begin(img.Digest, 0, 0, total)
	return p.store.build(ctx, img.Digest, info(img), func(t *tree) error {
		for _, l := range img.Layers {
			if err := mergeFrom(ctx, src, l, t.merger, r); err != nil {
				return fmt.Errorf("layer %s: %w", l.DiffID, err)
			}
		}
		return nil
	})
}

// mergeFrom merges a layer where the source has it.
func mergeFrom(ctx context.Context, src source.Source, l source.Layer, m *layers.Merger, r *reporter) error {
	body, _, err := src.Open(ctx, l, 0)
	if err != nil {
		return err
	}
	defer body.Close()
	return m.ApplyBlob(ctx, counted{body, ctx, r}, layers.Expect{Digest: l.Digest, DiffID: l.DiffID})
}

// fetchAndMerge merges layers while they are fetched. If one of them turns out not to be
// what it should be, after some of it was merged, all is merged again when it is there.
func (p *pull) fetchAndMerge(ctx context.Context, src source.Source, img *source.Image, total int64, r *reporter) error {
	f := &fetcher{src: src, dir: p.Dir, store: p.store.Dir(), report: r}
	blobs, stop := f.start(ctx, img, total)
	defer stop()
	for _, patient := range []bool{false, true} {
		err := p.store.build(ctx, img.Digest, info(img), func(t *tree) error {
			// A disk that is full ends the merge also while it waits for more of a layer.
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			t.disk.failed = cancel
			for i, l := range img.Layers {
				if err := f.merge(ctx, blobs[i], l.DiffID, patient, t.merger); err != nil {
					return err
				}
			}
			return nil
		})
		if !errors.Is(err, errRestarted) {
			return err
		}
		r.mergeAgain()
	}
	return errRestarted
}

// merge merges a layer as it comes, or when it is complete.
func (f *fetcher) merge(ctx context.Context, b *blob, diffID string, patient bool, m *layers.Merger) error {
	if patient {
		<-b.ended
	}
	in, err := f.read(ctx, b)
	if err != nil {
		return err
	}
	defer in.Close()
	e := layers.Expect{Digest: b.layer.Digest, DiffID: diffID}
	if b.compared {
		e.Digest = ""
	}
	if err = m.ApplyBlob(ctx, counted{in, ctx, f.report}, e); err == nil || ctx.Err() != nil {
		return err
	}
	// Content that is not what it should be may look like anything. Whether it is shows when
	// all of it is there.
	<-b.ended
	switch {
	case b.err != nil:
		return b.err
	case b.restarts != in.restarts:
		return errRestarted
	}
	err = fmt.Errorf("layer %s: %w", b.layer.Digest, err)
	if errors.Is(err, layers.ErrDigest) {
		// Nothing of it is of use for another try.
		return errors.Join(err, f.forget(b))
	}
	return err
}

// build makes the two files of an image whose layers merge brings.
func (s *Puller) build(ctx context.Context, digest string, i image.Info, merge func(*tree) error) (err error) {
	t, err := s.begin()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.out.Discard()) }()
	if err := merge(t); err != nil {
		return err
	}
	return t.commit(ctx, digest, i)
}

// tree is the tree of an image that is being made.
type tree struct {
	store  *Puller
	out    *atomicfile.Pending
	disk   *roomy
	writer *erofs.Writer
	merger *layers.Merger
}

func (s *Puller) begin() (*tree, error) {
	out, err := s.Begin()
	if err != nil {
		return nil, err
	}
	disk := &roomy{dir: s.Dir(), file: out.File}
	w := erofs.NewWriter(disk)
	return &tree{store: s, out: out, disk: disk, writer: w, merger: layers.New(w, s.options.Limits)}, nil
}

// commit puts it into the store. The caller has the right to the image.
func (t *tree) commit(ctx context.Context, digest string, i image.Info) (err error) {
	i.Digest, i.Dropped, i.Pulled = digest, image.Dropped(t.merger.Dropped()), time.Now().UTC().Truncate(time.Second)
	if i.Entries, err = t.writer.Finish(t.merger.Root(), uuid(digest)); err != nil {
		return err
	}
	return t.store.Put(ctx, t.out, i)
}

// uuid is the id of the file system: that of an image is always the same.
func uuid(digest string) (id [16]byte) {
	b, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
	if err == nil {
		copy(id[:], b)
	}
	return id
}

// info is what the configuration of an image says about it.
func info(img *source.Image) image.Info {
	i := image.Info{Platform: img.Platform, Created: img.Config.Created.Time, Config: configOf(img.Config.Config)}
	for _, l := range img.Layers {
		i.Layers = append(i.Layers, l.DiffID)
	}
	return i
}

func configOf(c v1.Config) image.Config {
	return image.Config{
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir, StopSignal: c.StopSignal,
		ExposedPorts: slices.Sorted(maps.Keys(c.ExposedPorts)), Volumes: slices.Sorted(maps.Keys(c.Volumes)), Labels: c.Labels,
	}
}
