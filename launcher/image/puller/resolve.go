// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"

	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/layers"
	"sandboxctl.dev/launcher/image/source"
)

// Options of a puller. The zero value is for use without any configuration.
type Options struct {
	// Registries says how registries are spoken to, RegistriesFile where that is written:
	// RegistriesPath, if there is such a file, if both are empty.
	Registries     source.Hosts
	RegistriesFile string
	// Keychain has the credentials: those of docker and podman if it is nil.
	Keychain authn.Keychain
	// UserAgent is how the program calls itself to registries.
	UserAgent string
	// Beneath bounds the paths of local references: source.Options has it.
	Beneath string
	// Limits of an image: layers.DefaultLimits if they are zero.
	Limits layers.Limits
}

// Puller fills a store with images.
type Puller struct {
	*image.Store
	options Options
}

// New makes a puller for a store.
func New(s *image.Store, o Options) *Puller {
	if o.Limits == (layers.Limits{}) {
		o.Limits = layers.DefaultLimits
	}
	return &Puller{s, o}
}

// Request asks for an image.
type Request struct {
	// Ref is a reference to a registry ("docker.io/library/nginx:1.27", also with
	// "@sha256:…"), "oci:DIR", "oci:DIR:TAG", "archive:FILE" or "archive:FILE:TAG" with
	// absolute paths, or "local:NAME" of an image that was imported.
	Ref string
	// Pull is IfNotPresent if it is empty.
	Pull imageref.PullPolicy
}

// Resolve finds the image that a request asks for, and pulls it if it has to. The image
// is the caller's to close. progress may be nil.
func (s *Puller) Resolve(ctx context.Context, r Request, progress image.Progress) (*image.Image, error) {
	ref, err := imageref.Normalize(r.Ref)
	if err != nil {
		return nil, err
	}
	if r.Pull != imageref.PullAlways || ref.Kind == imageref.Local {
		img, err := s.Known(ref)
		if err == nil {
			return img, nil
		}
		damaged := errors.Is(err, image.ErrDamaged)
		switch {
		case damaged && ref.Kind != imageref.Local && r.Pull != imageref.PullNever:
			// It is fetched again.
		case !errors.Is(err, image.ErrNotFound):
			return nil, err
		case ref.Kind == imageref.Local:
			return nil, fmt.Errorf("%w: %s; make it with: sandboxctl image import", image.ErrNotFound, ref)
		case r.Pull == imageref.PullNever:
			return nil, fmt.Errorf("%w: %s, and pullPolicy Never forbids to fetch it; fetch it with: sandboxctl image pull", image.ErrNotFound, ref)
		}
	}
	img, err := s.fetch(ctx, ref, &reporter{tell: progress})
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", ref, err)
	}
	return img, nil
}

// fetch asks the source what the reference means, and pulls that if the store lacks it.
func (s *Puller) fetch(ctx context.Context, ref imageref.Reference, r *reporter) (*image.Image, error) {
	r.phase(image.Resolving, "")
	hosts, err := s.registries()
	if err != nil {
		return nil, err
	}
	src, err := source.Open(ctx, ref, source.Options{
		Hosts: hosts, Keychain: s.options.Keychain, UserAgent: s.options.UserAgent, Beneath: s.options.Beneath,
		Temp: func() (source.Temp, error) { return s.temp() },
	})
	if err != nil {
		return nil, err
	}
	defer src.Close()
	digest, err := src.Digest(ctx)
	if err != nil {
		return nil, err
	}
	img, err := s.Find(digest)
	if errors.Is(err, image.ErrNotFound) || errors.Is(err, image.ErrDamaged) {
		img, err = s.pullOnce(ctx, src, digest, r)
	}
	if err != nil {
		return nil, err
	}
	img.Ref = ref.String()
	if err := s.PutTag(img.Ref, digest); err != nil {
		img.Close()
		return nil, err
	}
	return img, nil
}

// pullOnce pulls an image, unless somebody else has while this one waited.
func (s *Puller) pullOnce(ctx context.Context, src source.Source, digest string, r *reporter) (*image.Image, error) {
	claim, err := s.Lock(ctx, digest, func() { r.phase(image.Waiting, digest) })
	if err != nil {
		return nil, err
	}
	p := &pull{claim, s}
	img, err := s.Find(digest)
	if errors.Is(err, image.ErrNotFound) || errors.Is(err, image.ErrDamaged) {
		if err = p.make(ctx, src, r); err == nil {
			// Under the lock of the pull: nobody removes it before it is taken.
			img, err = s.Find(digest)
		}
	}
	if eerr := p.End(err != nil && src.Remote()); eerr != nil {
		err = errors.Join(err, eerr)
	}
	if err != nil && img != nil {
		img.Close()
		img = nil
	}
	return img, err
}
