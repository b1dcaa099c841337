// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/companion"
	it "sandboxctl.dev/launcher/image/imagetest"
)

// busyboxLayers are an image with busybox, the second layer of which removes something of
// the first.
var busyboxLayers = sync.OnceValues(func() (lower, upper []byte) {
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		panic(err)
	}
	exec := it.File("bin/busybox", string(b))
	exec.Mode = 0o755
	return it.Tar(it.Dir("bin"), exec, it.Symlink("bin/sh", "busybox"), it.File("old", strings.Repeat("o", 10_000))), it.Tar(it.File(".wh.old", ""))
})

// crashImage is an image in a registry that all worlds have and that ends with the
// program: under the race detector, to compress and upload a layer for each of a hundred
// worlds took longer than all their kills.
var crashImage struct {
	once sync.Once
	ref  string
}

// serve has an image in a registry.
func (w *crashWorld) serve() {
	crashImage.once.Do(func() {
		lower, upper := busyboxLayers()
		crashImage.ref, _ = serveImage(w.T, it.Config(nil, lower, upper), it.Gzip(lower), upper)
	})
	w.image = crashImage.ref
	host, _, _ := strings.Cut(w.image, "/")
	w.allowImages(host)
}

func (w *crashWorld) allowImages(host string) {
	policy := strings.Replace(policyFor(w.dir), "imagePaths:", "images: ["+host+"], imagePaths:", 1)
	must(w.T, os.WriteFile(w.path("policy.yaml"), []byte(policy), 0o644))
}

// webOfImage is the manifest of the sandbox with an image for its root.
func (w *crashWorld) webOfImage() {
	w.web("a", "0s")
	b, err := os.ReadFile(w.path("m/web.yaml"))
	must(w.T, err)
	text := strings.Replace(string(b), "root: {dir: "+w.path("root")+"}", "root: {image: {ref: '"+w.image+"'}}", 1)
	must(w.T, os.WriteFile(w.path("m/.web"), []byte(text), 0o644))
	must(w.T, os.Rename(w.path("m/.web"), w.path("m/web.yaml")))
}

// pulled waits until no pull is left, and nothing of one: an image is its tree, its
// description and its reference.
func (w *crashWorld) pulled() {
	w.Helper()
	left := func() (out []string) {
		for _, pid := range pullers(w.T, w.path("s")) {
			out = append(out, fmt.Sprint("process ", pid))
		}
		must(w.T, filepath.WalkDir(w.path("s/images"), func(p string, d os.DirEntry, err error) error {
			if err == nil && (!d.IsDir() || filepath.Base(filepath.Dir(p)) == "pulls") {
				out = append(out, p)
			}
			return err
		}))
		return out
	}
	for deadline := time.Now().Add(time.Minute); len(left()) != 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("left of a pull: %q", left())
		}
	}
}

// pullers are the processes that pull into a state directory.
func pullers(t *testing.T, state string) (pids []int) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	for _, d := range dirs {
		b, err := os.ReadFile(d + "/cmdline")
		args := strings.Split(string(b), "\x00")
		if err != nil || args[0] != companion.ImageName || len(args) < 3 || args[2] != state {
			continue
		}
		pid := 0
		if _, err := fmt.Sscanf(filepath.Base(d), "%d", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A pull ends with its daemon, however that ends and whatever the pull waits for: a
// registry that gives nothing, or one that never ends.
func TestPullDiesWithDaemon(t *testing.T) {
	requireHost(t)
	t.Parallel()
	lower, upper := busyboxLayers()
	digest, blobs := it.Blobs(it.Config(nil, lower, upper), lower, upper)
	for name, c := range map[string]struct {
		at      string // what is asked when the daemon is killed
		stopped bool   // before, so that it does not see its daemon end until it is continued
		give    func(w http.ResponseWriter, r *http.Request)
	}{
		"a manifest that does not come": {"/manifests/", false, silent},
		"a layer that does not come":    {"/blobs/" + it.Digest(lower), false, silent},
		"a layer without an end":        {"/blobs/" + it.Digest(lower), false, endless},
		"a pull that is stopped":        {"/blobs/" + it.Digest(lower), true, silent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan struct{}, 100)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
				switch {
				case strings.Contains(r.URL.Path, c.at):
					asked <- struct{}{}
					c.give(w, r)
				case id == "1":
					w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
					_, _ = w.Write(blobs[digest])
				default:
					_, _ = w.Write(blobs[id])
				}
			}))
			t.Cleanup(s.Close)
			w := newCrashWorld(t)
			host := strings.TrimPrefix(s.URL, "http://")
			w.image = host + "/web:1"
			w.allowImages(host)
			w.webOfImage()
			daemon, out := w.once(filepath.Join(binDir, "sandboxctl"))
			<-asked
			pids := pullers(t, w.path("s"))
			if len(pids) != 1 {
				t.Fatalf("%d pulls", len(pids))
			}
			pidfd, err := unix.PidfdOpen(pids[0], 0)
			must(t, err)
			defer unix.Close(pidfd)
			id, err := process.Identify(pidfd, pids[0])
			must(t, err)
			pull, err := process.Open(id)
			must(t, err)
			defer pull.Close()
			if c.stopped {
				must(t, pull.Signal(unix.SIGSTOP))
			}
			must(t, daemon.Process.Kill())
			_ = daemon.Wait()
			if c.stopped {
				must(t, pull.Signal(unix.SIGCONT))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := pull.Wait(ctx); err != nil {
				t.Errorf("the pull lives: %v\n%s", err, out)
			}
			// Nobody asks on its behalf either, and the next daemon can.
			removeWeb(w)
			w.converge()
		})
	}
}

// silent gives nothing until its client is gone.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// endless gives more and more.
func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 64<<10)); err != nil {
			return
		}
	}
}
