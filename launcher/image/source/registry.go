// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"sandboxctl.dev/desired/imageref"
)

// Options are what sources need of the program.
type Options struct {
	// Hosts say how registries are spoken to.
	Hosts Hosts
	// Temp makes a file for an archive that is compressed as a whole.
	Temp func() (Temp, error)
	// Keychain has the credentials: those of docker and podman if it is nil.
	Keychain authn.Keychain
	// UserAgent is how the program calls itself.
	UserAgent string
	// Beneath is the directory, or the file itself, that local references may name: who
	// may write below it must not lead out of it by a link. Any may be named if it is empty.
	Beneath string
}

// Open opens the source of a reference.
func Open(ctx context.Context, r imageref.Reference, o Options) (Source, error) {
	if r.Kind != imageref.Registry {
		return openFiles(ctx, r, o)
	}
	if o.Keychain == nil {
		o.Keychain = Keychain
	}
	n, err := name.ParseReference(r.String())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", imageref.ErrInvalid, err)
	}
	s := &registry{ref: n, options: o}
	for _, repo := range o.Hosts.endpoints(n.Context()) {
		s.endpoints = append(s.endpoints, &endpoint{repo: repo, host: o.Hosts.of(repo.RegistryStr())})
	}
	return s, nil
}

// registry is an image in a registry, or in a mirror of it.
type registry struct {
	ref       name.Reference
	options   Options
	endpoints []*endpoint // mirrors first; what has answered is moved to the front
	manifest  []byte
}

// endpoint is a registry or a mirror.
type endpoint struct {
	repo name.Repository
	host Host

	mu     sync.Mutex // of what follows, until there is a client
	client *http.Client
	base   *http.Transport
	scheme string
}

// accepted are the documents that are understood.
var accepted = strings.Join([]string{
	string(types.OCIImageIndex), string(types.DockerManifestList), string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
}, ", ")

// connect authenticates.
func (e *endpoint) connect(ctx context.Context, o Options) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client != nil {
		return nil
	}
	auth, err := authn.Resolve(ctx, o.Keychain, e.repo)
	if err != nil {
		return fmt.Errorf("%w: credentials for %s: %w", ErrUnauthorized, e.repo.RegistryStr(), err)
	}
	if e.base, err = o.Hosts.transport(e.host); err != nil {
		return err
	}
	retrying := transport.NewRetry(guarded{e.base, o.Hosts, e.repo.RegistryStr()}, transport.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout))
	reg, scheme := e.repo.Registry, "https"
	if e.host.plain(reg.RegistryStr()) {
		if reg, err = name.NewRegistry(reg.RegistryStr(), name.Insecure); err != nil {
			return err
		}
		// The transport finds out if it is TLS after all.
		scheme = "http"
	}
	t, err := transport.NewWithContext(ctx, reg, auth, transport.NewUserAgent(retrying, o.UserAgent), []string{e.repo.Scope(transport.PullScope)})
	if err != nil {
		return classify(err, e.repo.RegistryStr())
	}
	e.client, e.scheme = &http.Client{Transport: t}, scheme
	return nil
}

// get asks for something of the repository.
func (e *endpoint) get(ctx context.Context, o Options, path string, header http.Header, codes ...int) (*http.Response, error) {
	if err := e.connect(ctx, o); err != nil {
		return nil, err
	}
	address := fmt.Sprintf("%s/v2/%s/%s", e.repo.RegistryStr(), e.repo.RepositoryStr(), path)
	req, err := http.NewRequestWithContext(want(ctx, address), http.MethodGet, e.scheme+"://"+address, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, classify(err, e.repo.RegistryStr())
	}
	if err := transport.CheckError(resp, codes...); err != nil {
		resp.Body.Close()
		return nil, classify(err, e.repo.RegistryStr())
	}
	return resp, nil
}

// document reads a manifest, an index or a configuration.
func (e *endpoint) document(ctx context.Context, o Options, path string, most int64) ([]byte, types.MediaType, error) {
	resp, err := e.get(ctx, o, path, http.Header{"Accept": {accepted}}, http.StatusOK)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body := guardStall(resp.Body)
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, most+1))
	if err != nil {
		return nil, "", classify(err, e.repo.RegistryStr())
	}
	if int64(len(b)) > most {
		return nil, "", fmt.Errorf("%w: %s has more than %d bytes", ErrInvalid, path, most)
	}
	return b, types.MediaType(resp.Header.Get("Content-Type")), nil
}

// try asks the mirrors and then the registry, until one answers. What a mirror lacks or
// denies the registry may have: a mirror alone never decides that there is no image.
func (r *registry) try(ctx context.Context, ask func(*endpoint) error) error {
	var errs []error
	for i, e := range r.endpoints {
		err := ask(e)
		if err == nil {
			r.endpoints[0], r.endpoints[i] = r.endpoints[i], r.endpoints[0]
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return r.verdict(errs)
}

// Digest implements Source.
func (r *registry) Digest(ctx context.Context) (digest string, err error) {
	err = r.try(ctx, func(e *endpoint) error {
		b, mediaType, err := e.document(ctx, r.options, "manifests/"+r.ref.Identifier(), mostManifest)
		if err != nil {
			return err
		}
		if d, ok := r.ref.(name.Digest); ok {
			if err := checkSum("manifest", b, d.DigestStr()); err != nil {
				return err
			}
		}
		r.manifest, err = choose(ctx, b, mediaType, func(ctx context.Context, d v1.Descriptor) ([]byte, error) {
			return e.child(ctx, r.options, "manifests/", d, mostManifest)
		})
		return err
	})
	return digestOf(r.manifest), err
}

// child reads a document that a descriptor names.
func (e *endpoint) child(ctx context.Context, o Options, kind string, d v1.Descriptor, most int64) ([]byte, error) {
	digest, err := checkDigest(d.Digest)
	if err != nil {
		return nil, err
	}
	b, _, err := e.document(ctx, o, kind+digest, most)
	if err != nil {
		return nil, err
	}
	return b, checkSum("document", b, digest)
}

// Describe implements Source.
func (r *registry) Describe(ctx context.Context) (img *Image, err error) {
	return describe(ctx, r.manifest, func(ctx context.Context, d v1.Descriptor) (b []byte, err error) {
		err = r.try(ctx, func(e *endpoint) error {
			b, err = e.child(ctx, r.options, "blobs/", d, mostConfig)
			return err
		})
		return b, err
	})
}

// Open implements Source. It may be called by several goroutines.
func (r *registry) Open(ctx context.Context, l Layer, offset int64) (body io.ReadCloser, at int64, err error) {
	var errs []error
	for _, e := range r.endpoints {
		body, at, err := e.blob(ctx, r.options, l, offset)
		if err == nil {
			return body, at, nil
		}
		errs = append(errs, err)
	}
	return nil, 0, r.verdict(errs)
}

// verdict is the error of endpoints that have all failed, in their order. The registry's
// own answer says what kind of error it is, wherever the registry is among them.
func (r *registry) verdict(errs []error) error {
	own := slices.IndexFunc(r.endpoints, func(e *endpoint) bool { return e.repo.Name() == r.ref.Context().Name() })
	err := errs[own]
	for i, other := range errs {
		if i != own {
			err = fmt.Errorf("%w (a mirror: %s)", err, other.Error())
		}
	}
	return err
}

// blob opens a layer, from the offset on if the registry can do that.
func (e *endpoint) blob(ctx context.Context, o Options, l Layer, offset int64) (io.ReadCloser, int64, error) {
	header, codes := http.Header{}, []int{http.StatusOK}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		codes = append(codes, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	}
	resp, err := e.get(ctx, o, "blobs/"+l.Digest, header, codes...)
	if err != nil {
		return nil, 0, err
	}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)) {
			return guardStall(resp.Body), offset, nil
		}
		fallthrough
	case http.StatusRequestedRangeNotSatisfiable:
		// It answers something else than what was asked: from the start, then.
		resp.Body.Close()
		return e.blob(ctx, o, l, 0)
	}
	return guardStall(resp.Body), 0, nil
}

// Remote implements Source.
func (r *registry) Remote() bool { return true }

// Close implements Source.
func (r *registry) Close() error {
	for _, e := range r.endpoints {
		if e.base != nil {
			e.base.CloseIdleConnections()
		}
	}
	return nil
}

// classify says what kind of error it is.
func classify(err error, host string) error {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		if errors.Is(err, context.Canceled) {
			return err
		}
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, host, err)
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %s; log in with docker or podman, or check the name (a registry may deny what does not exist): %w", ErrUnauthorized, host, err)
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s: %w", ErrMissing, host, err)
	case http.StatusTooManyRequests:
		return &answerError{"the registry limits how often it may be asked: " + host + "; log in, use a mirror, or wait", err}
	}
	return &answerError{"the registry does not work: " + host, err}
}

// answerError is an answer of a registry that may be another one in a moment: as good as
// none, and told apart from none.
type answerError struct {
	text string
	err  error
}

func (e *answerError) Error() string        { return e.text + ": " + e.err.Error() }
func (e *answerError) Unwrap() error        { return e.err }
func (e *answerError) Is(target error) bool { return target == ErrUnreachable }
