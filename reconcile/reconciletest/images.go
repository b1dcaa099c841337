// SPDX-License-Identifier: Apache-2.0

package reconciletest

import (
	"context"
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/imageref"
)

// images are a registry and the store of the host.
type images struct {
	published map[string]string // digests by reference
	stored    map[string]bool   // digests
	tags      map[string]string // what references meant when they were resolved
	pulls     []imageref.PullRequest
	// OnPull is called in each pull, if set. It may take as long as it likes. An error
	// fails the pull.
	OnPull func(ctx context.Context, r imageref.PullRequest, report func(operation.PullStep)) error
}

// Publish has a reference mean an image, or none for "".
func (w *World) Publish(ref, digest string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.published[ref] = digest
}

// DropImage removes an image from the store.
func (w *World) DropImage(digest string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.stored, digest)
	w.notify()
}

// Pulls are the pulls that were begun.
func (w *World) Pulls() []imageref.PullRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]imageref.PullRequest(nil), w.pulls...)
}

// FindImage is reconcile's view of the store.
func (w *World) FindImage(ref string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	digest, ok := w.tags[ref]
	if !ok {
		digest = ref
	}
	if !w.stored[digest] {
		return ""
	}
	return digest
}

// Pull implements reconcile.Puller.
func (w *World) Pull(ctx context.Context, r imageref.PullRequest, report func(operation.PullStep)) (string, error) {
	w.mu.Lock()
	w.pulls = append(w.pulls, r)
	if r.Policy == imageref.PullNever {
		_ = w.breach("a pull of %s, whose policy is Never", r.Ref)
	}
	w.mu.Unlock()
	if w.OnPull != nil {
		if err := w.OnPull(ctx, r, report); err != nil {
			return "", err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	digest := w.published[r.Ref]
	if digest == "" {
		return "", fmt.Errorf("pull %s: %w", r.Ref, operation.ErrImageNotFound)
	}
	if r.Digest != "" && r.Digest != digest {
		return "", fmt.Errorf("pull %s: it has the digest %s", r.Ref, digest)
	}
	w.stored[digest], w.tags[r.Ref] = true, digest
	w.notify()
	return digest, nil
}

// imageOf is what goes on record of an image.
func imageOf(e *desired.Entry, digest string) *actual.Image {
	if e.Sandbox.Spec.Root.Image == nil {
		return nil
	}
	return &actual.Image{Ref: e.Sandbox.Spec.Root.Image.Reference(), Digest: digest}
}
