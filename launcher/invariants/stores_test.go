// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/volume"
)

// spec is that of a sandbox with a volume.
const withVolume = "apiVersion: " + desired.APIVersion + `
kind: Sandbox
metadata: {name: web}
spec:
  root: {host: {}}
  command: [sh]
  volumes: [{mountPath: /data, volume: {name: data}}]
`

// volumes opens those of a state directory, "data" among them.
func (w *world) volumes() *volume.Store {
	w.t.Helper()
	st := &setup.Setup{Containers: []setup.Container{{Volumes: []setup.Source{{Volume: "data"}}}}}
	o, err := volume.OpenAll(w.t.Context(), w.store.RootDir(), st, "web")
	must(w.t, err)
	o.Close()
	s, err := volume.Open(w.store.RootDir())
	must(w.t, err)
	w.t.Cleanup(s.Close)
	return s
}

// A volume that a killed program has left is told, one that is being made is not.
func TestVolumesLeft(t *testing.T) {
	t.Parallel()
	for what, make := range map[string]func(w *world){
		"nothing in it": func(w *world) { must(t, os.MkdirAll(w.path("volumes/v"), 0o700)) },
		"an empty one":  func(w *world) { must(t, os.MkdirAll(w.path("volumes/v/data"), 0o700)) },
		"half of a restore": func(w *world) {
			must(t, os.MkdirAll(w.path("volumes/v/data/d"), 0o700))
			must(t, os.WriteFile(w.path("volumes/v/meta.json"), []byte(`{"version":1,"name":"v","restoring":true}`), 0o600))
		},
	} {
		w := newWorld(t)
		w.volumes()
		w.expect(Options{Settled: true})
		make(w)
		w.expect(Options{}, LeftoverVolume)
		f, err := os.Open(w.path("volumes/v"))
		must(t, err)
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		w.expect(Options{Settled: true})
		f.Close()
		w.expect(Options{Settled: true}, LeftoverVolume)
		if t.Failed() {
			t.Fatal(what)
		}
	}
	// What holds files of somebody's is told by the store, and none of these.
	w := newWorld(t)
	w.volumes()
	must(t, os.Remove(w.path("volumes/data/meta.json")))
	must(t, os.WriteFile(w.path("volumes/data/data/file"), nil, 0o600))
	w.expect(Options{Settled: true})
	// Neither is what a volume holds.
	must(t, os.MkdirAll(w.path("volumes/data/data/trash/x"), 0o700))
	w.write("volumes/data/data/.sandboxctl-tmp-0011")
	w.expect(Options{Settled: true})
	w.write("volumes/data/.sandboxctl-tmp-0011")
	w.expect(Options{Settled: true}, LeftoverTemp)
}

// What runs has its volumes and its image, or that is told.
func TestStoresOfRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.volumes()
	docs, problems := desired.Decode("web.yaml", []byte(withVolume))
	if len(docs) != 1 || len(problems) > 0 {
		t.Fatal(problems)
	}
	spec, err := desired.Canonical(docs[0].Sandbox)
	must(t, err)
	w.rec.Spec = spec
	digest := "sha256:" + strings.Repeat("0", 64)
	w.rec.App().Image = &actual.Image{Ref: "local:web", Digest: digest}
	w.put() // stopped: it needs nothing
	w.expect(Options{})
	w.rec.Phase = actual.PhaseRunning
	w.put()
	w.expect(Options{}, MissingImage)
	s, err := image.OpenStore(w.store.Path())
	must(t, err)
	defer s.Close()
	tree := w.path("images/" + strings.Repeat("0", 64) + ".erofs")
	must(t, os.WriteFile(tree, []byte("tree"), 0o400))
	w.expect(Options{}, LeftoverImage, MissingImage)
	meta := bytes.NewBufferString("{\n\t\"version\": 1,\n\t\"digest\": \"" + digest + "\",\n\t\"bytes\": 4\n}")
	must(t, os.WriteFile(strings.TrimSuffix(tree, ".erofs")+".json", meta.Bytes(), 0o600))
	w.expect(Options{})
	for what, damage := range map[string]func(){
		"no meta.json": func() { must(t, os.Rename(w.path("volumes/data/meta.json"), w.path("aside"))) },
		"no data":      func() { must(t, os.Rename(w.path("volumes/data/data"), w.path("aside"))) },
		"a link": func() {
			must(t, os.Rename(w.path("volumes/data/data"), w.path("aside")))
			must(t, os.Symlink("/", w.path("volumes/data/data")))
		},
		"nothing":    func() { must(t, os.Rename(w.path("volumes/data"), w.path("aside"))) },
		"no volumes": func() { must(t, os.Rename(w.path("volumes"), w.path("aside"))) },
	} {
		must(t, os.WriteFile(w.path("volumes/data/data/file"), nil, 0o600))
		damage()
		w.expect(Options{Settled: true}, append(unsettled(2), MissingVolume)...)
		if t.Failed() {
			t.Fatal(what)
		}
		_ = os.Remove(w.path("volumes/data/data")) // a link
		for _, p := range []string{"volumes", "volumes/data", "volumes/data/meta.json", "volumes/data/data"} {
			if _, err := os.Lstat(w.path(p)); err != nil {
				must(t, os.Rename(w.path("aside"), w.path(p)))
				break
			}
		}
	}
	must(t, os.Truncate(tree, 3))
	w.expect(Options{}, MissingImage)
}

// unsettled are the kinds of a record that says of dead processes that they run.
func unsettled(n int) (out []Kind) {
	for range n {
		out = append(out, Unsettled)
	}
	return out
}
