// SPDX-License-Identifier: Apache-2.0

// Package rootimage is between the store of images and the sandboxes whose roots they
// are: an image is fetched for a start, found in the store, and opened for a sentry.
package rootimage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/erofs/go-erofs"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/setup"
)

// Images is the store of a state directory for a program that keeps running: what is
// removed, mounted or replaced meanwhile is opened again. It is safe for concurrent use.
type Images struct {
	State string

	mu    sync.Mutex
	store *image.Store
	// reading has room for one look at an image because a start has failed. Who looks may
	// use verified, what was found last.
	reading  chan struct{}
	verified map[string]look
}

// look is what was found of an image.
type look struct {
	at     time.Time
	damage error // nil if there was none
}

// verifyEvery is how often an image may be read for starts that fail: that a program does
// not start is rarely the disk's fault, and an image may have gigabytes.
const verifyEvery = time.Hour

func (i *Images) open() (*image.Store, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.reading == nil {
		i.reading, i.verified = make(chan struct{}, 1), map[string]look{}
	}
	if i.store != nil && i.store.Current(i.State) {
		return i.store, nil
	}
	// The one before may be in use: the runtime closes it when it is not.
	store, err := image.OpenStoreReadOnly(i.State)
	if err != nil {
		i.store = nil
		return nil, err
	}
	i.store = store
	return store, nil
}

// Find is Find of the store that there is now.
func (i *Images) Find(ref string) string {
	store, err := i.open()
	if err != nil {
		return "" // an image is fetched, which makes a store or says what is wrong
	}
	return Find(store, ref)
}

// Open is Open of the store that there is now.
func (i *Images) Open(ctx context.Context, want *desired.ImageRoot, digest string) (*hostfs.Image, error) {
	store, err := i.open()
	if err != nil {
		return nil, fmt.Errorf("spec.root.image: %s: %w", want.Reference(), err)
	}
	opened := time.Now()
	out, err := Open(store, want, digest)
	if errors.Is(err, image.ErrDamaged) {
		return nil, errors.Join(err, store.Verify(ctx, digest))
	}
	if err != nil {
		return nil, i.blame(ctx, store, digest, opened, err)
	}
	out.Verify = func(ctx context.Context) error { return i.blame(ctx, store, digest, opened, nil) }
	return out, nil
}

// blame is the error that an image is damaged, if it is, or else the one that it is asked
// about. Such an image is marked. The start has used the file that there was when it opened
// the image.
func (i *Images) blame(ctx context.Context, store *image.Store, digest string, opened time.Time, failed error) error {
	select {
	case i.reading <- struct{}{}:
	default:
		operation.Waits(ctx) // gigabytes are read for another start
		select {
		case i.reading <- struct{}{}:
		case <-ctx.Done():
			return failed
		}
	}
	defer func() { <-i.reading }()
	last := i.verified[digest]
	if last.damage != nil && opened.Before(last.at) {
		return last.damage // another start has found that meanwhile
	}
	// Also if it was damaged, and is another one now: on a disk that damages all it gets,
	// each start would have it fetched again.
	if time.Since(last.at) < verifyEvery {
		return failed
	}
	operation.Waits(ctx)
	err := store.Verify(ctx, digest)
	last = look{at: time.Now()}
	switch {
	case errors.Is(err, image.ErrDamaged):
		last.damage = fmt.Errorf("spec.root.image: %w; it is fetched again", err)
		failed = last.damage
	case err != nil && !errors.Is(err, image.ErrNoChecksum):
		return failed // it was not read to its end
	}
	i.verified[digest] = last
	return failed
}

// Find returns the digest of the image that a reference or a digest means to the
// store, "" if it has none. Nobody is asked.
func Find(store *image.Store, ref string) string {
	digest := ref
	if imageref.CheckDigest(ref) != nil {
		r, err := imageref.Normalize(ref)
		if err == nil {
			digest, err = store.Meaning(r)
		}
		if err != nil {
			return "" // it is fetched, which says what is wrong
		}
	}
	if !store.Has(digest) {
		return ""
	}
	return digest
}

// Open takes the image with a digest out of the store. What its reference means now does
// not matter. It is kept in the store until it is closed.
func Open(store *image.Store, want *desired.ImageRoot, digest string) (*hostfs.Image, error) {
	ref := want.Reference()
	img, err := store.Find(digest)
	if err != nil {
		return nil, fmt.Errorf("spec.root.image: %s (%s): %w", ref, cmp.Or(digest, "no digest"), err)
	}
	file, err := img.Open()
	if err != nil {
		_ = img.Close()
		return nil, fmt.Errorf("spec.root.image: open %s: %w", digest, err)
	}
	release := func() {
		// Nothing was written.
		_ = file.Close()
		_ = img.Close()
	}
	tree, err := erofs.Open(file)
	if err != nil {
		release()
		return nil, fmt.Errorf("spec.root.image: read %s: %w: %w", digest, image.ErrDamaged, err)
	}
	c := &img.Config
	out := &hostfs.Image{
		Image: &setup.Image{
			ImageSource: setup.ImageSource{Ref: ref, Digest: img.Digest},
			Config: setup.ImageConfig{
				Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir, StopSignal: c.StopSignal,
			},
		},
		Tree: tree, File: img.Open, Release: release,
	}
	if err := out.ReadUsers(); err != nil {
		release()
		return nil, operation.Permanentf("spec.root.image: %w", err)
	}
	return out, nil
}
