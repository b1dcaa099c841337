// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	it "sandboxctl.dev/launcher/image/imagetest"
)

// noise is what does not compress.
func noise(n int) string {
	b := make([]byte, n)
	r := mathrand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b) // it never fails
	return string(b)
}

// TestRealRegistry pulls from Debian's docker-registry what skopeo has pushed there, while
// everything that can goes wrong: each is told, nothing is lost and nothing is left.
func TestRealRegistry(t *testing.T) {
	requireHost(t)
	t.Parallel()
	r := newRealRegistry(t.TempDir(), t.Fatalf)
	t.Cleanup(r.close)
	lower, upper := busyboxLayers()
	big := it.Tar(it.File("big", noise(12<<20)))
	layers := [][]byte{lower, big, upper}
	config := it.Config(map[string]any{"Cmd": []string{"sh", "-c", "echo from the registry; exec sleep 1000"}, "Env": []string{"PATH=/bin"}}, layers...)
	manifest := r.push("team/web:1", config, layers...)
	digest := it.Digest(manifest)
	var parsed struct {
		Layers []struct {
			Digest string
			Size   int64
		}
	}
	must(t, json.Unmarshal(manifest, &parsed))
	bigLayer := parsed.Layers[1]
	good := func(state, ref string) {
		t.Helper()
		out, err := r.pull(state, ref)
		if err != nil || !strings.Contains(out, digest) {
			t.Errorf("%v: %s, expected %s\n%s", err, out, digest, r.said())
		}
		if files, _ := r.stored(state); len(files) != 3 {
			t.Errorf("left: %q", files)
		}
	}
	bad := func(state, what string, kept int64) {
		t.Helper()
		out, err := r.pull(state, "team/web:1")
		if err == nil || !strings.Contains(out, what) {
			t.Errorf("%v: %s, expected %q", err, out, what)
		}
		files, n := r.stored(state)
		if n > kept {
			t.Errorf("%d bytes are left: %q", n, files)
		}
		if list, err := r.image(state, false, "ls", "-o", "json"); err != nil || strings.TrimSpace(list) != "[]" {
			t.Errorf("%v: there is an image: %s", err, list)
		}
	}

	// By tag, by digest, and again.
	state := t.TempDir()
	good(state, "team/web:1")
	good(state, "team/web:1")
	good(t.TempDir(), "team/web@"+digest)
	if out, err := r.pull(state, "team/web:2"); err == nil || !strings.Contains(out, "no such image") {
		t.Errorf("%v: %s", err, out)
	}

	// Who has no password, and who does not know the authority.
	if out, err := r.image(state, false, "pull", "--registries", r.registries(), r.host()+"/team/web:1"); err == nil || !strings.Contains(out, "the registry denies access") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := r.image(state, true, "pull", r.host()+"/team/web:1"); err == nil || !strings.Contains(out, "certificate") {
		t.Errorf("%v: %s", err, out)
	}

	// A blob that is damaged on the registry's disk, and one that is cut.
	whole, err := os.ReadFile(r.blob(bigLayer.Digest))
	must(t, err)
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 1
	state = t.TempDir()
	must(t, os.WriteFile(r.blob(bigLayer.Digest), damaged, 0o600))
	bad(state, bigLayer.Digest, 3<<20) // the other layers are kept for the next try
	must(t, os.WriteFile(r.blob(bigLayer.Digest), whole[:len(whole)/2], 0o600))
	bad(state, fmt.Sprintf("it ended after %d of %d bytes", len(whole)/2, len(whole)), 3<<20+int64(len(whole)/2))
	must(t, os.WriteFile(r.blob(bigLayer.Digest), whole, 0o600))
	good(state, "team/web:1")

	// It dies in the middle of the layer, and is back: nothing of what came comes again.
	state = t.TempDir()
	r.cutAfter(6 << 20)
	bad(state, "the registry can't be reached", 7<<20)
	r.start()
	good(state, "team/web:1")
	if said := r.said(); !strings.Contains(said, "http.response.status=206 ") {
		t.Errorf("it was not asked for the rest:\n%s", said)
	}

	// A disk that is too small, and one with room again.
	state = t.TempDir()
	must(t, unix.Mount("tmpfs", state, "tmpfs", 0, "size=24m,mode=0700"))
	t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	bad(state, "not enough room on the disk of the images", 14<<20)
	must(t, unix.Mount("tmpfs", state, "tmpfs", unix.MS_REMOUNT, "size=64m,mode=0700"))
	good(state, "team/web:1")
}
