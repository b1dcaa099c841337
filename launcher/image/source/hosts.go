// SPDX-License-Identifier: Apache-2.0

package source

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/desired/trustedfile"
)

// Hosts says how registries are spoken to, by their names ("docker.io",
// "registry.example:5000"). The zero value is for registries of the internet.
type Hosts map[string]Host

// Host is how one registry is spoken to.
type Host struct {
	// Mirrors are asked first: "mirror.example:5000" or "mirror.example/prefix".
	Mirrors []string `json:"mirrors,omitempty"`
	// PlainHTTP speaks HTTP without TLS. It is not needed for loopback addresses.
	PlainHTTP bool `json:"plainHTTP,omitempty"`
	// AllowLocal lets the name of the registry mean an address of this host, or one that
	// only this host's network has.
	AllowLocal bool `json:"allowLocal,omitempty"`
	// CAFile is a file of certificates that are trusted for this registry, beside
	// those of the host.
	CAFile string `json:"caFile,omitempty"`
}

// of is how a registry is spoken to.
func (h Hosts) of(host string) Host {
	if host == name.DefaultRegistry {
		host = imageref.DockerHub
	}
	return h[host]
}

// endpoints are where a repository may be, the registry itself last.
func (h Hosts) endpoints(repo name.Repository) (out []name.Repository) {
	for _, m := range h.of(repo.RegistryStr()).Mirrors {
		if r, err := mirrored(m, repo); err == nil {
			out = append(out, r)
		}
	}
	return append(out, repo)
}

// mirrored is the repository on a mirror.
func mirrored(mirror string, repo name.Repository) (name.Repository, error) {
	host, prefix, _ := strings.Cut(mirror, "/")
	if prefix != "" {
		prefix += "/"
	}
	reg, err := name.NewRegistry(host)
	if err != nil {
		return name.Repository{}, err
	}
	return reg.Repo(prefix + repo.RepositoryStr()), nil
}

// Check says what is wrong with it.
func (h Hosts) Check() error {
	for host, s := range h {
		if _, err := name.NewRegistry(host, name.StrictValidation); err != nil {
			return fmt.Errorf("registries: %q is not the name of a registry: %w", host, err)
		}
		for _, m := range s.Mirrors {
			if strings.Contains(m, "://") {
				return fmt.Errorf("registries: %q: mirror %q: give it without a scheme, as HOST:PORT or HOST/PREFIX", host, m)
			}
			r, err := name.NewRegistry(host, name.StrictValidation)
			if err == nil {
				_, err = mirrored(m, r.Repo("x"))
			}
			if err != nil {
				return fmt.Errorf("registries: %q: mirror %q: %w", host, m, err)
			}
		}
		if s.CAFile != "" && !filepath.IsAbs(s.CAFile) {
			return fmt.Errorf("registries: %q: caFile %q: the path must be absolute", host, s.CAFile)
		}
	}
	return nil
}

// plain says whether a registry may be spoken to without TLS. Others never are: who is
// on the way could read credentials.
func (h Host) plain(host string) bool { return h.PlainHTTP || isLoopback(hostname(host)) }

// hostname is a host without its port.
func hostname(host string) string {
	if n, _, err := net.SplitHostPort(host); err == nil {
		return n
	}
	return host
}

func isLoopback(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// How long the network may do nothing.
const (
	connectTime = 15 * time.Second
	answerTime  = time.Minute
	stallTime   = time.Minute
)

// transport is the connections to a registry.
func (h Hosts) transport(of Host) (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = h.dial
	t.TLSHandshakeTimeout, t.ResponseHeaderTimeout = connectTime, answerTime
	// Layers are compressed already.
	t.DisableCompression = true
	if of.CAFile == "" {
		return t, nil
	}
	pem, err := readCertificates(of.CAFile)
	if err != nil {
		return nil, fmt.Errorf("registries: caFile: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("registries: caFile %s has no certificate", of.CAFile)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}

// maxCertificates is how large a caFile may be: that of all authorities of the web has a
// quarter of a mebibyte.
const maxCertificates = 4 << 20

// caSettle is how long it must have been left alone where nobody can tell whether it is
// being written.
const caSettle = 100 * time.Millisecond

// readCertificates reads a caFile. Who can write it, or put another one in its place, decides
// which registry is believed, and so what runs: it is opened as the file that names it.
func readCertificates(path string) ([]byte, error) {
	f, err := trustedfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s: expected a regular file", path)
	}
	b, err := trustedfile.Read(f, &st, caSettle, maxCertificates)
	if err == nil && len(b) > maxCertificates {
		err = fmt.Errorf("it has more than %d bytes", maxCertificates)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// guarded refuses HTTP without TLS, also where a registry or its token server leads to.
// It lets no registry elsewhere lead to this host, whose services may trust who is here,
// and bounds answers that the client of the registry reads by itself.
type guarded struct {
	inner http.RoundTripper
	hosts Hosts
	// registry is what was asked first.
	registry string
}

var errPlain = errors.New("it would be spoken to without TLS; allow that in the registries file with plainHTTP: true, if the network is trusted")

var errInside = errors.New("an address of this host or its link, to which the registry leads, is not asked; allow that in the registries file with allowLocal: true")

func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if host := r.URL.Host; host != g.registry && isInside(r.URL.Hostname()) && !(isLoopback(r.URL.Hostname()) && isLoopback(hostname(g.registry))) && !g.hosts.of(host).local() {
		return nil, fmt.Errorf("%s: %w", host, errInside)
	}
	if r.URL.Scheme != "https" && !g.hosts.of(r.URL.Host).plain(r.URL.Host) {
		return nil, fmt.Errorf("%s: %w", r.URL.Host, errPlain)
	}
	resp, err := g.inner.RoundTrip(r)
	// Only what a repository has is guarded where it is read: the client reads errors and
	// redirections to their end.
	if err == nil && (!ofRepository(r) || resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent) {
		resp.Body = bounded(resp.Body)
	}
	return resp, err
}

// Keychain has the credentials of docker and podman: their files, and the helpers that
// these name.
var Keychain = authn.NewMultiKeychain(authn.DefaultKeychain, podmanRoot{})

// podmanRoot is where podman keeps credentials of root if no session set a directory.
type podmanRoot struct{}

const podmanFile = "/run/containers/0/auth.json"

// Resolve implements authn.Keychain.
func (podmanRoot) Resolve(target authn.Resource) (authn.Authenticator, error) {
	f, err := os.Open(podmanFile)
	if err != nil {
		return authn.Anonymous, nil //nolint:nilerr // where it is missing, there are none
	}
	defer f.Close()
	c, err := config.LoadFromReader(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", podmanFile, err)
	}
	for _, key := range []string{target.String(), target.RegistryStr()} {
		if key == name.DefaultRegistry {
			key = imageref.DockerHub
		}
		auth, err := c.GetAuthConfig(key)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", podmanFile, err)
		}
		auth.ServerAddress = ""
		if auth != (types.AuthConfig{}) {
			return authn.FromConfig(authn.AuthConfig{Username: auth.Username, Password: auth.Password, Auth: auth.Auth, IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken}), nil
		}
	}
	return authn.Anonymous, nil
}
