// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"sandboxctl.dev/desired/imageref"
)

// names is a server of names that lead to this host or its link, however they are written.
var names = map[string][]string{
	"loopback.example.": {"127.0.0.1"}, "another.example.": {"127.8.9.10"}, "six.example.": {"::1"}, "mapped.example.": {"::ffff:127.0.0.1"},
	"nothing.example.": {"0.0.0.0"}, "zero.example.": {"0.1.2.3"}, "link.example.": {"169.254.169.254"}, "link6.example.": {"fe80::1"},
	"cloud6.example.": {"fd00:ec2::254"}, "cloud.example.": {"100.100.100.200"}, "many.example.": {"224.0.0.1"},
	"both.example.": {"127.0.0.1", "::1"},
}

// Names are asked of this process. Lookups may go on when their test is over.
func TestMain(m *testing.M) {
	if err := serveNames(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serveNames answers queries by UDP, and has this process ask there.
func serveNames() error {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Additionals = true, nil
			for _, a := range names[q.Name.String()] {
				// A resolver must not show a mapped address as one of IPv6: it is given as such.
				ip := netip.MustParseAddr(a)
				h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
				if ip.Is4() && q.Type == dnsmessage.TypeA {
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: ip.As4()}})
				}
				if ip.Is6() && q.Type == dnsmessage.TypeAAAA {
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
				}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(out, from) // who gets no answer fails
			}
		}
	}()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", c.LocalAddr().String())
	}}
	return nil
}

// Who has a domain decides what its names mean. None of them leads to a service of this
// host, before or after a certificate was looked at.
func TestNamesOfThisHost(t *testing.T) {
	t.Parallel()
	asked := false
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked = true; w.WriteHeader(http.StatusNotFound) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	ca := t.TempDir() + "/ca.pem"
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	ask := func(host string, h Hosts) error {
		ref, err := imageref.Normalize(host + "/web:1")
		if err != nil {
			t.Fatal(err)
		}
		src, err := Open(t.Context(), ref, Options{Hosts: h, Keychain: Keychain})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		_, err = src.Digest(t.Context())
		return err
	}
	for n := range names {
		host := strings.TrimSuffix(n, ".")
		for _, host := range []string{host, host + ":" + port} {
			err := ask(host, nil)
			if !errors.Is(err, errInside) || !strings.Contains(err.Error(), "allowLocal") {
				t.Errorf("%s: %v", host, err)
			}
		}
	}
	if asked {
		t.Error("this host was asked")
	}
	// The administrator may allow it. The certificate is for example.com and 127.0.0.1.
	host := "loopback.example:" + port
	if err := ask(host, Hosts{host: {AllowLocal: true, CAFile: ca}}); err == nil || errors.Is(err, errInside) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("allowed: %v", err)
	}
	if err := ask("127.0.0.1:"+port, Hosts{"127.0.0.1:" + port: {CAFile: ca}}); !errors.Is(err, ErrMissing) || !asked {
		t.Errorf("its address: %v", err)
	}
}

// Of several addresses each is judged.
func TestNameWithSeveralAddresses(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if c, err := (Hosts{}).dial(t.Context(), "tcp", "both.example:"+port); err == nil {
		c.Close()
		t.Error("connected")
	}
	c, err := Hosts{"both.example:" + port: {AllowLocal: true}}.dial(t.Context(), "tcp", "both.example:"+port)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestIsInside(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.255.255.254": true, "::1": true, "[::1]": true, "::ffff:127.0.0.1": true, "::ffff:a9fe:a9fe": true, "0.0.0.0": true, "::": true,
		"0.0.0.1": true, "169.254.0.1": true, "fe80::1": true, "fe80::1%eth0": true, "ff02::1": true, "239.1.1.1": true, "168.63.129.16": true, "localhost": true,
		"10.0.0.1": false, "192.168.1.1": false, "172.16.0.1": false, "100.64.0.1": false, "8.8.8.8": false, "fd00::1": false, "2001:db8::1": false,
		"1.0.0.127": false, "registry.example": false, "": false, "127.0.0.1.example": false,
	} {
		if isInside(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
}

// A proxy of the environment may be on this host.
func TestProxies(t *testing.T) {
	t.Setenv("HTTP_PROXY", "")
	t.Setenv("http_proxy", "")
	for v, want := range map[string]string{
		"http://proxy.lan:3128": "proxy.lan:3128", "proxy.lan:3128": "proxy.lan:3128", "https://u:p@proxy.lan": "proxy.lan:443", "socks5://proxy.lan": "proxy.lan:1080",
		"http://[::1]": "[::1]:80", "": "", "http://%": "", "://": "",
	} {
		t.Setenv("HTTPS_PROXY", v)
		t.Setenv("https_proxy", "")
		if got := strings.Join(proxies(), " "); got != want {
			t.Errorf("%s: %q, expected %q", v, got, want)
		}
	}
}

// What the client of a registry reads by itself has bounds: the answer to the first
// question, a token, and what either leads to.
func TestAnswersWithoutEnd(t *testing.T) {
	t.Parallel()
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}
	for name, serve := range map[string]func(url string, w http.ResponseWriter, r *http.Request){
		"the first answer": func(_ string, w http.ResponseWriter, r *http.Request) { endless(w, r) },
		"an answer of 401": func(url string, w http.ResponseWriter, r *http.Request) { challenge(w, url+"/token"); endless(w, r) },
		"an error": func(_ string, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			endless(w, r)
		},
		"a token":           tokenAt("/token", endless),
		"a token of a name": tokenAt("/v2/library/web/manifests/1", endless),
		"where a token leads": tokenAt("/token", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				endless(w, r)
				return
			}
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s *httptest.Server
			sent := &counting{}
			s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(s.URL, sent.of(w), r) }))
			defer s.Close()
			ref, err := imageref.Normalize(strings.TrimPrefix(s.URL, "http://") + "/library/web:1")
			if err != nil {
				t.Fatal(err)
			}
			src, err := Open(t.Context(), ref, Options{Keychain: Keychain})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			if d, err := src.Digest(t.Context()); err == nil {
				t.Errorf("%s", d)
			}
			// What is on the way is in buffers of the kernel.
			if n := sent.total(); n > 64<<20 {
				t.Errorf("%d MiB were read", n>>20)
			}
		})
	}
}

func challenge(w http.ResponseWriter, realm string) {
	w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=\"x\"", realm))
	w.WriteHeader(http.StatusUnauthorized)
}

// tokenAt is a registry whose tokens are at a path.
func tokenAt(path string, serve http.HandlerFunc) func(string, http.ResponseWriter, *http.Request) {
	return func(url string, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path && r.URL.RawQuery != "" || r.URL.Path == "/elsewhere" {
			serve(w, r)
			return
		}
		challenge(w, url+path)
	}
}
