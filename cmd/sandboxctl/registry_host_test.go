// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	it "sandboxctl.dev/launcher/image/imagetest"
)

// realRegistry is Debian's docker-registry on loopback, with TLS of an own authority and
// a password, behind a wire that can be cut or held.
type realRegistry struct {
	dir    string
	fatalf func(format string, args ...any) // ends the test
	wires  net.Listener
	behind string // address of the registry itself
	cmd    *exec.Cmd

	mu   sync.Mutex
	left int64 // bytes that still come through, if it is not negative
	hold bool  // what comes after them waits for ever; else the registry dies then
	open int   // connections
	log  bytes.Buffer
}

// The password is "secret".
const htpasswd = "me:$2b$04$WvXwh.WpPhaokz.tC6SKH.auaeg/Ks1oBAoH0burWQylY8V1kkWme\n"

// newRealRegistry starts one in a directory, which fatalf ends the test of.
func newRealRegistry(dir string, fatalf func(string, ...any)) *realRegistry {
	r := &realRegistry{dir: dir, fatalf: fatalf, left: -1}
	r.certify()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	r.wires = l
	r.must(os.WriteFile(r.dir+"/htpasswd", []byte(htpasswd), 0o600))
	r.must(os.WriteFile(r.registries(), []byte(fmt.Sprintf("registries:\n  %s:\n    caFile: %s/ca/ca.crt\n", r.host(), r.dir)), 0o600))
	r.login("secret")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.wire(c)
		}
	}()
	r.start()
	return r
}

func (r *realRegistry) must(err error) {
	if err != nil {
		r.fatalf("the registry: %v", err)
	}
}

func (r *realRegistry) close() {
	r.wires.Close()
	r.stop()
}

func (r *realRegistry) host() string       { return r.wires.Addr().String() }
func (r *realRegistry) registries() string { return r.dir + "/registries.yaml" }

// login writes the file of docker with a password.
func (r *realRegistry) login(password string) {
	auth := base64.StdEncoding.EncodeToString([]byte("me:" + password))
	r.must(os.MkdirAll(r.dir+"/docker", 0o700))
	r.must(os.WriteFile(r.dir+"/docker/config.json", []byte(fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.host(), auth)), 0o600))
}

// certify makes an authority, and a certificate of it.
func (r *realRegistry) certify() {
	r.must(errors.Join(os.MkdirAll(r.dir+"/ca", 0o755), os.MkdirAll(r.dir+"/certs", 0o755)))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "own"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	for name, c := range map[string]*x509.Certificate{"ca/ca.crt": ca, "certs/registry.pem": leaf} {
		b, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, key)
		r.must(err)
		r.must(os.WriteFile(r.dir+"/"+name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b}), 0o644))
	}
	b, err := x509.MarshalECPrivateKey(key)
	r.must(err)
	r.must(os.WriteFile(r.dir+"/certs/registry.key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: b}), 0o600))
}

// start starts the registry, and waits until it listens.
func (r *realRegistry) start() {
	cmd, addr := r.serve("config.yml", fmt.Sprintf(`auth: {htpasswd: {realm: here, path: %[1]s/htpasswd}}
http: {addr: "127.0.0.1:0", secret: x, tls: {certificate: %[1]s/certs/registry.pem, key: %[1]s/certs/registry.key}}
`, r.dir))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cmd, r.behind, r.left = cmd, addr, -1
	r.log.Reset()
}

// serve runs a docker-registry on the data, and returns its address.
func (r *realRegistry) serve(file, more string) (*exec.Cmd, string) {
	config := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: false}}\nstorage: {filesystem: {rootdirectory: %s/data}}\n%s", r.dir, more)
	r.must(os.WriteFile(r.dir+"/"+file, []byte(config), 0o600))
	cmd := exec.Command("docker-registry", "serve", r.dir+"/"+file)
	out, in, err := os.Pipe()
	r.must(err)
	cmd.Stdout, cmd.Stderr = in, in
	r.must(cmd.Start())
	in.Close()
	listens := make(chan string, 1)
	go func() {
		defer close(listens)
		for s := bufio.NewScanner(out); s.Scan(); {
			if _, rest, found := strings.Cut(s.Text(), "listening on "); found {
				addr, _, _ := strings.Cut(rest, ",")
				addr, _, _ = strings.Cut(addr, "\"")
				listens <- addr
			}
			r.mu.Lock()
			r.log.WriteString(s.Text() + "\n")
			r.mu.Unlock()
		}
		out.Close()
	}()
	addr, ok := <-listens
	if !ok {
		r.fatalf("docker-registry: %s", r.said())
	}
	return cmd, addr
}

func (r *realRegistry) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// stop kills it.
func (r *realRegistry) stop() {
	r.mu.Lock()
	cmd := r.cmd
	r.cmd = nil
	r.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// wire is one connection. When it has carried all that it may, the registry dies, or it
// is held.
func (r *realRegistry) wire(c net.Conn) {
	defer c.Close()
	r.mu.Lock()
	behind := r.behind
	r.open++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.open--
		r.mu.Unlock()
	}()
	b, err := net.Dial("tcp", behind)
	if err != nil {
		return
	}
	defer b.Close()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(b, c)
		b.Close()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := b.Read(buf)
		through, hold := r.pass(n)
		if _, werr := c.Write(buf[:through]); werr != nil || err != nil {
			return
		}
		switch {
		case through == n:
		case hold:
			<-gone
			return
		default:
			r.stop()
			return
		}
	}
}

// pass says how many of the bytes come through, and whether the others wait.
func (r *realRegistry) pass(n int) (int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left < 0 {
		return n, false
	}
	through := int(min(int64(n), r.left))
	r.left -= int64(through)
	return through, r.hold
}

// cutAfter has the registry die when it has sent as much.
func (r *realRegistry) cutAfter(n int64) { r.limit(n, false) }

// holdAfter has it send as much and no more, until it is started again.
func (r *realRegistry) holdAfter(n int64) { r.limit(n, true) }

func (r *realRegistry) limit(n int64, hold bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left, r.hold = n, hold
}

// exhausted says whether it has sent all that it may.
func (r *realRegistry) exhausted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left == 0
}

// connections are those that are open.
func (r *realRegistry) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// skopeo runs it.
func (r *realRegistry) skopeo(args ...string) string {
	cmd := exec.Command("skopeo", append([]string{"--insecure-policy"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.fatalf("skopeo %s: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// push puts an image there, and returns its manifest.
func (r *realRegistry) push(name string, config []byte, layers ...[]byte) (manifest []byte) {
	archive := r.dir + "/pushed.tar"
	r.must(os.WriteFile(archive, it.DockerArchive([]string{"web:1"}, config, layers...), 0o600))
	remote := "docker://" + r.host() + "/" + name
	r.skopeo("copy", "-q", "--dest-cert-dir", r.dir+"/ca", "--dest-creds", "me:secret", "docker-archive:"+archive, remote)
	return []byte(r.skopeo("inspect", "--raw", "--cert-dir", r.dir+"/ca", "--creds", "me:secret", remote))
}

// image runs a verb of it on a state directory, with the password if it is to have it.
func (r *realRegistry) image(state string, password bool, verb ...string) (string, error) {
	cmd := exec.Command(filepath.Join(binDir, "sandboxctl"), append([]string{"--state", state, "image"}, verb...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir + "/nobody"}
	if password {
		cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+r.dir+"/docker")
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// pull is image pull as it should be called.
func (r *realRegistry) pull(state, ref string) (string, error) {
	return r.image(state, true, "pull", "-q", "--registries", r.registries(), r.host()+"/"+ref)
}

// stored are the files in the store of a state directory.
func (r *realRegistry) stored(state string) (files []string, bytes int64) {
	r.must(filepath.WalkDir(state+"/images", func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			files, bytes = append(files, strings.TrimPrefix(p, state)), bytes+st.Size()
		}
		return err
	}))
	return files, bytes
}

// blob is the file that the registry keeps a blob in.
func (r *realRegistry) blob(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return fmt.Sprintf("%s/data/docker/registry/v2/blobs/sha256/%s/%s/data", r.dir, hex[:2], hex)
}
