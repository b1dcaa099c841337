// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/registry"

	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/image"
	it "sandboxctl.dev/launcher/image/imagetest"
	"sandboxctl.dev/launcher/image/layers"
	"sandboxctl.dev/launcher/image/source"
)

// fake is a registry on loopback that a test can break.
type fake struct {
	*httptest.Server
	mu sync.Mutex
	// asked has the requests, blobs those of them that were for a blob.
	asked []string
	// meddle may answer instead of the registry: true if it has.
	meddle func(w http.ResponseWriter, r *http.Request) bool
}

func newFake(t testing.TB) *fake {
	t.Helper()
	f := &fake{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		if r.Method == http.MethodGet {
			f.asked = append(f.asked, r.URL.Path+" "+r.Header.Get("Range"))
		}
		meddle := f.meddle
		f.mu.Unlock()
		if meddle != nil && meddle(w, r) {
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) host() string { return strings.TrimPrefix(f.URL, "http://") }

func (f *fake) set(meddle func(http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meddle, f.asked = meddle, nil
}

// requests counts the requests whose path has the text.
func (f *fake) requests(text string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.asked {
		if strings.Contains(a, text) {
			n++
		}
	}
	return n
}

func (f *fake) send(t testing.TB, method, path string, header http.Header, body []byte) {
	t.Helper()
	r, err := http.NewRequest(method, f.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		b, err := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, b, err)
	}
}

// push pushes an image, and returns its digest.
func (f *fake) push(t testing.TB, name, tag string, config []byte, blobs ...[]byte) string {
	t.Helper()
	digest, all := it.Blobs(config, blobs...)
	for d, b := range all {
		if d != digest {
			f.send(t, http.MethodPost, "/v2/"+name+"/blobs/uploads/?digest="+d, http.Header{}, b)
		}
	}
	f.put(t, name, tag, "application/vnd.oci.image.manifest.v1+json", all[digest])
	return digest
}

func (f *fake) put(t testing.TB, name, tag, mediaType string, b []byte) {
	t.Helper()
	f.send(t, http.MethodPut, "/v2/"+name+"/manifests/"+tag, http.Header{"Content-Type": {mediaType}}, b)
}

// noise is a layer that does not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	if _, err := r.Read(b); err != nil {
		panic(err)
	}
	return it.Tar(it.File("noise", string(b)))
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	config := it.Config(conf, lower, upper)
	digest := f.push(t, "team/web", "1", config, it.Gzip(lower), it.Zstd(upper))
	s := open(t, t.TempDir(), Options{})
	var steps []image.Step
	img, err := s.Resolve(context.Background(), Request{Ref: f.host() + "/team/web:1"}, func(p image.Step) { steps = append(steps, p) })
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if img.Digest != digest || img.Ref != f.host()+"/team/web:1" || content(t, img, "version") != "1\n" {
		t.Errorf("%+v", img)
	}
	if last := steps[len(steps)-1]; last.Phase != image.Merging || last.Done != last.Total || last.Total == 0 || steps[0].Phase != image.Resolving {
		t.Errorf("steps: %+v", steps)
	}
	f.set(nil)
	// What is in the store is asked of nobody, also by its digest.
	for _, ref := range []string{":1", "@" + digest, ":other@" + digest} {
		if got := resolve(t, s, f.host()+"/team/web"+ref, ""); got.Digest != digest {
			t.Errorf("%s: %s", ref, got.Digest)
		}
	}
	if n := f.requests(""); n != 0 {
		t.Errorf("%d requests for what is there", n)
	}
	// Always asks what the tag means, and for nothing that is there.
	resolve(t, s, f.host()+"/team/web:1", imageref.PullAlways)
	if m, b := f.requests("/manifests/"), f.requests("/blobs/"); m != 1 || b != 0 {
		t.Errorf("Always: %d requests for manifests, %d for blobs", m, b)
	}
	moved := f.push(t, "team/web", "1", it.Config(nil, lower), lower)
	if got := resolve(t, s, f.host()+"/team/web:1", ""); got.Digest != digest {
		t.Error("a moved tag is followed")
	}
	if got := resolve(t, s, f.host()+"/team/web:1", imageref.PullAlways); got.Digest != moved {
		t.Error("a moved tag is not followed")
	}
	for _, e := range must(s.List()) {
		if len(e.Refs) == 0 && e.Digest != digest {
			t.Errorf("%s has no reference", e.Digest)
		}
	}
	// By a digest that the store has not.
	if got := resolve(t, open(t, t.TempDir(), Options{}), f.host()+"/team/web@"+digest, ""); got.Digest != digest {
		t.Error(got.Digest)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestRegistryPlatforms(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	digest := f.push(t, "web", "here", it.Config(nil, lower), lower)
	other := f.push(t, "web", "there", it.Config(nil, upper), upper)
	index := func(list ...map[string]any) []byte {
		return must(json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": list}))
	}
	m := func(d, os, arch, variant string) map[string]any {
		return map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": d, "size": 1, "platform": map[string]string{"os": os, "architecture": arch, "variant": variant}}
	}
	inner := index(m(other, "linux", "s390x", ""), m(digest, "linux", runtime.GOARCH, ""))
	f.put(t, "web", "inner", "application/vnd.oci.image.index.v1+json", inner)
	for tag, list := range map[string][]map[string]any{
		"first":       {m(digest, "linux", runtime.GOARCH, ""), m(other, "linux", "s390x", "")},
		"last":        {m(other, "windows", runtime.GOARCH, ""), m(other, "unknown", "unknown", ""), m(digest, "linux", runtime.GOARCH, "")},
		"variants":    {m(other, "linux", runtime.GOARCH, "v4"), m(digest, "linux", runtime.GOARCH, "")},
		"nested":      {{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": it.Digest(inner), "size": len(inner)}},
		"no platform": {{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}},
	} {
		tag := strings.ReplaceAll(tag, " ", "-")
		b := index(list...)
		f.put(t, "web", tag, "application/vnd.oci.image.index.v1+json", b)
		if got := resolve(t, open(t, t.TempDir(), Options{}), f.host()+"/web:"+tag, ""); got.Digest != digest {
			t.Errorf("%s: %s", tag, got.Digest)
		}
		// And by the digest of the index.
		if got := resolve(t, open(t, t.TempDir(), Options{}), f.host()+"/web@"+it.Digest(b), ""); got.Digest != digest {
			t.Errorf("%s by digest: %s", tag, got.Digest)
		}
	}
	f.put(t, "web", "none", "application/vnd.oci.image.index.v1+json", index(m(digest, "linux", "s390x", ""), m(digest, "linux", "mips64le", "")))
	_, err := open(t, t.TempDir(), Options{}).Resolve(context.Background(), Request{Ref: f.host() + "/web:none"}, nil)
	if !errors.Is(err, source.ErrPlatform) || !strings.Contains(err.Error(), "linux/mips64le, linux/s390x") {
		t.Errorf("no platform: %v", err)
	}
	// An image for another platform, without an index.
	foreign := bytes.Replace(it.Config(nil, lower), []byte(runtime.GOARCH), []byte("s390x"), 1)
	f.push(t, "web", "foreign", foreign, lower)
	if _, err := open(t, t.TempDir(), Options{}).Resolve(context.Background(), Request{Ref: f.host() + "/web:foreign"}, nil); !errors.Is(err, source.ErrPlatform) {
		t.Errorf("an image for another platform: %v", err)
	}
}

// A registry breaks in the middle of a layer, and the pull goes on there.
func TestRegistryResumes(t *testing.T) {
	t.Parallel()
	big := noise(3 << 20)
	for name, ranges := range map[string]bool{"with ranges": true, "without ranges": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.push(t, "web", "1", it.Config(nil, big), big)
			sent := 0
			f.set(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, it.Digest(big)) {
					return false
				}
				from := 0
				if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && ranges {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(big)-1, len(big)))
					w.Header().Set("Content-Length", strconv.Itoa(len(big)-from))
					w.WriteHeader(http.StatusPartialContent)
				} else {
					from = 0
					w.Header().Set("Content-Length", strconv.Itoa(len(big)))
				}
				// A megabyte at a time, or all of it at the third try.
				n := min(1<<20, len(big)-from)
				if !ranges && f.requests(it.Digest(big)) > 2 {
					n = len(big)
				}
				n, err := w.Write(big[from : from+n])
				if err != nil {
					t.Error(err)
				}
				sent += n
				return true
			})
			img := resolve(t, open(t, t.TempDir(), Options{}), f.host()+"/web:1", "")
			if got := it.Digest([]byte(content2(t, img, "noise"))); got != it.Digest(big[512:512+3<<20]) {
				t.Error("the content is not that of the layer")
			}
			if ranges && sent != len(big) {
				t.Errorf("%d bytes were sent for a layer of %d", sent, len(big))
			}
		})
	}
}

func content2(t testing.TB, img *image.Image, path string) string {
	t.Helper()
	b, err := img.ReadFile(path, 1<<30)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// A pull that failed leaves what it has for the next one, in another process too.
func TestPullGoesOn(t *testing.T) {
	t.Parallel()
	first, second := noise(1<<20), noise(2<<20)
	f := newFake(t)
	f.push(t, "web", "1", it.Config(nil, first, second), first, second)
	dir := t.TempDir()
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, it.Digest(second)) {
			return false
		}
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(second)))
		if _, err := w.Write(second[:1<<20]); err != nil {
			t.Error(err)
		}
		return true
	})
	s := open(t, dir, Options{})
	_, err := s.Resolve(context.Background(), Request{Ref: f.host() + "/web:1"}, nil)
	if !errors.Is(err, source.ErrUnreachable) {
		t.Fatalf("%v, expected that the registry is unreachable", err)
	}
	s.Close()
	s = open(t, dir, Options{})
	if left := must(s.Leftovers()); left.Pulls != 1 || left.Bytes < 2<<20 {
		t.Errorf("left: %+v", left)
	}
	f.set(nil)
	resolve(t, s, f.host()+"/web:1", "")
	if n := f.requests(it.Digest(first)); n != 0 {
		t.Errorf("the layer that was complete is asked for again, %d times", n)
	}
	if left := must(s.Leftovers()); left.Pulls != 0 {
		t.Errorf("left in the end: %+v", left)
	}
}

func TestRegistryFaults(t *testing.T) {
	t.Parallel()
	layer := it.Gzip(lower)
	config := it.Config(nil, lower)
	digest := it.Digest(layer)
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(code)
			return true
		}
	}
	instead := func(of string, b []byte) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, of) {
				return false
			}
			_, err := w.Write(b)
			return err == nil
		}
	}
	damaged := bytes.Clone(layer)
	damaged[len(damaged)/2] ^= 1
	for name, c := range map[string]struct {
		meddle func(http.ResponseWriter, *http.Request) bool
		want   error
		says   string
	}{
		"no such image":           {instead("/nothing", nil), source.ErrMissing, "no such image"},
		"access denied":           {status(401), source.ErrUnauthorized, "log in"},
		"forbidden":               {status(403), source.ErrUnauthorized, "log in"},
		"too many requests":       {status(429), source.ErrUnreachable, "limits"},
		"a broken registry":       {status(500), source.ErrUnreachable, ""},
		"a damaged layer":         {instead(digest, damaged), layers.ErrDigest, digest},
		"a layer that is shorter": {instead(digest, layer[:len(layer)-1]), source.ErrUnreachable, "it ended after"},
		"a layer that is longer":  {instead(digest, append(bytes.Clone(layer), 0)), layers.ErrDigest, ""},
		"an empty layer":          {instead(digest, nil), source.ErrUnreachable, "0 of"},
		"a damaged configuration": {instead(it.Digest(config), append(bytes.Clone(config), ' ')), source.ErrInvalid, "digest"},
		"no configuration": {func(w http.ResponseWriter, r *http.Request) bool {
			return strings.HasSuffix(r.URL.Path, it.Digest(config)) && status(404)(w, r)
		}, source.ErrMissing, "configuration"},
		"a manifest of rubbish":     {instead("/manifests/1", []byte("{")), source.ErrInvalid, ""},
		"a manifest of an artifact": {instead("/manifests/1", []byte(`{"schemaVersion":2,"config":{"digest":"`+it.Digest(config)+`"},"layers":[{"mediaType":"application/vnd.cncf.helm.chart.content","digest":"`+digest+`"}]}`)), source.ErrInvalid, "artifact"},
		"a manifest of old times":   {instead("/manifests/1", []byte(`{"schemaVersion":1}`)), source.ErrInvalid, "push it again"},
		"a digest that is a path":   {instead("/manifests/1", []byte(`{"schemaVersion":2,"config":{"digest":"sha256:../../../etc/passwd"}}`)), source.ErrInvalid, ""},
		"a manifest too large":      {instead("/manifests/1", make([]byte, 5<<20)), source.ErrInvalid, "more than"},
		"indexes for ever": {func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"%s","size":1}]}`, it.Digest(config))
			return true
		}, source.ErrInvalid, ""},
		"sizes that overflow": {instead("/manifests/1", []byte(`{"schemaVersion":2,"config":{"digest":"`+it.Digest(config)+`"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":9223372036854775807,"digest":"`+digest+`"}]}`)), layers.ErrLimit, "layers of more"},
		"a negative size":     {instead("/manifests/1", []byte(`{"schemaVersion":2,"config":{"digest":"`+it.Digest(config)+`"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":-5,"digest":"`+digest+`"}]}`)), source.ErrInvalid, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.push(t, "web", "1", config, layer)
			f.set(c.meddle)
			s := open(t, t.TempDir(), Options{})
			ref := f.host() + "/web:1"
			if name == "no such image" {
				ref = f.host() + "/nothing:1"
			}
			_, err := s.Resolve(context.Background(), Request{Ref: ref}, nil)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), ref) {
				t.Errorf("%v, expected %v with %q", err, c.want, c.says)
			}
			if all := must(s.List()); len(all) != 0 {
				t.Errorf("there is %v", all)
			}
			// The registry is mended, and nothing of the fault is left.
			f.set(nil)
			if name == "no such image" {
				return
			}
			if got := resolve(t, s, ref, ""); content(t, got, "etc/passwd") == "" {
				t.Error("the image is empty")
			}
			if left := must(s.Leftovers()); left.Pulls != 0 || left.Trees != 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

func TestRegistryCredentials(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	digest := f.push(t, "web", "1", it.Config(nil, lower), lower)
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, _ := r.BasicAuth(); u == "me" && p == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	for name, c := range map[string]struct {
		auth authn.Authenticator
		want error
	}{
		"right": {&authn.Basic{Username: "me", Password: "secret"}, nil},
		"wrong": {&authn.Basic{Username: "me", Password: "Secret"}, source.ErrUnauthorized},
		"none":  {authn.Anonymous, source.ErrUnauthorized},
	} {
		s := open(t, t.TempDir(), Options{Keychain: keychain{c.auth}})
		img, err := s.Resolve(context.Background(), Request{Ref: f.host() + "/web:1"}, nil)
		if !errors.Is(err, c.want) || err == nil && img.Digest != digest {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "ecret") {
			t.Errorf("%s: the password is in %v", name, err)
		}
	}
}

type keychain struct{ authn.Authenticator }

func (k keychain) Resolve(authn.Resource) (authn.Authenticator, error) { return k.Authenticator, nil }

func TestMirrors(t *testing.T) {
	t.Parallel()
	f, mirror := newFake(t), newFake(t)
	digest := f.push(t, "web", "1", it.Config(nil, lower), lower)
	mirrored := mirror.push(t, "cache/web", "1", it.Config(nil, upper), upper)
	hosts := source.Hosts{f.host(): {Mirrors: []string{"127.0.0.1:1", mirror.host() + "/cache"}}}
	if err := hosts.Check(); err != nil {
		t.Fatal(err)
	}
	// The first that answers.
	if got := resolve(t, open(t, t.TempDir(), Options{Registries: hosts}), f.host()+"/web:1", ""); got.Digest != mirrored {
		t.Errorf("%s is not of the mirror", got.Digest)
	}
	// A mirror that denies or lacks it does not decide.
	for _, code := range []int{404, 401, 500} {
		mirror.set(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(code)
			return true
		})
		if got := resolve(t, open(t, t.TempDir(), Options{Registries: hosts}), f.host()+"/web:1", ""); got.Digest != digest {
			t.Errorf("%d: %s is not of the registry", code, got.Digest)
		}
	}
	mirror.set(nil)
	mirror.push(t, "cache/web", "1", it.Config(nil, lower), lower)
	// Nor does one that lacks a layer, when the registry fails for a moment.
	failed := false
	mirror.set(func(w http.ResponseWriter, r *http.Request) bool {
		lacks := strings.Contains(r.URL.Path, "/blobs/")
		if lacks {
			w.WriteHeader(http.StatusNotFound)
		}
		return lacks
	})
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		fails := strings.HasSuffix(r.URL.Path, it.Digest(lower)) && !failed
		if fails {
			failed = true
			w.WriteHeader(http.StatusInternalServerError)
		}
		return fails
	})
	if got := resolve(t, open(t, t.TempDir(), Options{Registries: hosts}), f.host()+"/web:1", ""); got.Digest != digest || !failed {
		t.Errorf("%s, failed: %v", got.Digest, failed)
	}
	f.set(nil)
	// One that lies is found out by the digest.
	mirror.set(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/manifests/") && must(w.Write([]byte(`{"schemaVersion":2}`))) > 0
	})
	if got := resolve(t, open(t, t.TempDir(), Options{Registries: hosts}), f.host()+"/web@"+digest, ""); got.Digest != digest {
		t.Error(got.Digest)
	}
	f.Close()
	_, err := open(t, t.TempDir(), Options{Registries: hosts}).Resolve(context.Background(), Request{Ref: f.host() + "/web@" + digest}, nil)
	if !errors.Is(err, source.ErrUnreachable) {
		t.Errorf("nobody answers: %v", err)
	}
}

// Many ask for one image at the same time: it comes once.
func TestPullOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	big := noise(1 << 20)
	f.push(t, "web", "1", it.Config(nil, big), big)
	f.set(nil)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		// A store of its own is like a process of its own: locks are of open files.
		s := open(t, dir, Options{})
		wg.Go(func() {
			img, err := s.Resolve(context.Background(), Request{Ref: f.host() + "/web:1"}, nil)
			if err != nil {
				t.Error(err)
				return
			}
			img.Close()
		})
	}
	wg.Wait()
	if n := f.requests(it.Digest(big)); n != 1 {
		t.Errorf("the layer was asked for %d times", n)
	}
}
