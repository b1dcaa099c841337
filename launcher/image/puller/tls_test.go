// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	it "sandboxctl.dev/launcher/image/imagetest"
	"sandboxctl.dev/launcher/image/source"
)

// A registry with TLS whose tokens come from a server beside it, as most public ones have
// it.
func TestRegistryTokens(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	big := noise(3 << 20) // more than an answer that is no part of an image may have
	digest := f.push(t, "team/web", "1", it.Config(nil, lower, big), lower, big)
	var s *httptest.Server
	s = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			user, password, _ := r.BasicAuth()
			if user != "me" || password != "secret" || r.URL.Query().Get("scope") != "repository:team/web:pull" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, `{"token":"opensesame"}`)
			return
		}
		if r.URL.Path == "/elsewhere" { // where layers are, for whoever knows the address
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(big))
			return
		}
		if r.Header.Get("Authorization") != "Bearer opensesame" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, s.URL))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/blobs/"+it.Digest(big)) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		f.Config.Handler.ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are refused
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := write(t, t.TempDir()+"/ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	host := strings.TrimPrefix(s.URL, "https://")
	trusting := source.Hosts{host: {CAFile: ca}}
	for name, c := range map[string]struct {
		hosts    source.Hosts
		password string
		want     error
	}{
		"all is right":         {trusting, "secret", nil},
		"a wrong password":     {trusting, "wrong", source.ErrUnauthorized},
		"an unknown authority": {source.Hosts{}, "secret", source.ErrUnreachable},
	} {
		st := open(t, t.TempDir(), Options{Registries: c.hosts, Keychain: keychain{&authn.Basic{Username: "me", Password: c.password}}})
		img, err := st.Resolve(context.Background(), Request{Ref: host + "/team/web:1"}, nil)
		if !errors.Is(err, c.want) || err == nil && img.Digest != digest {
			t.Errorf("%s: %v, expected %v", name, err, c.want)
		}
		if err == nil {
			img.Close()
		}
	}
	// An authority that can't be read is told, and nobody is asked without it.
	st := open(t, t.TempDir(), Options{Registries: source.Hosts{host: {CAFile: ca + ".missing"}}})
	if _, err := st.Resolve(context.Background(), Request{Ref: host + "/team/web:1"}, nil); err == nil || !strings.Contains(err.Error(), "caFile") {
		t.Errorf("%v", err)
	}
}
