// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	it "sandboxctl.dev/launcher/image/imagetest"
)

// A sandbox may be of an image in a layout, with named volumes and values of documents.

// layout writes one with two images, of which one has the tag v1 and the other v2. moved
// changes which is which.
func (w *world) layout(moved bool) {
	w.t.Helper()
	dir := filepath.Join(w.dir, "layout")
	busybox, err := os.ReadFile(filepath.Join(w.dir, "rootfs", "bin", "busybox"))
	must(w.t, err)
	program := it.File("bin/busybox", string(busybox))
	program.Mode = 0o755
	lower := it.Tar(it.Dir("bin"), program)
	must(w.t, os.MkdirAll(dir, 0o755))
	tags := []string{"v1", "v2"}
	if moved {
		tags = []string{"v2", "v1"}
	}
	manifests := []any{}
	for i, tag := range tags {
		upper := it.Tar(it.File("version", fmt.Sprint(i)))
		digest, blobs := it.Blobs(it.Config(nil, lower, upper), lower, upper)
		for d, b := range blobs {
			at := filepath.Join(dir, "blobs", strings.Replace(d, ":", "/", 1))
			if _, err := os.Stat(at); err == nil {
				continue
			}
			must(w.t, os.MkdirAll(filepath.Dir(at), 0o755))
			must(w.t, os.WriteFile(at, b, 0o644))
		}
		manifests = append(manifests, map[string]any{
			"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": len(blobs[digest]),
			"annotations": map[string]string{"org.opencontainers.image.ref.name": tag},
		})
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": manifests})
	must(w.t, err)
	must(w.t, os.WriteFile(dir+"/.index", index, 0o644))
	must(w.t, os.Rename(dir+"/.index", dir+"/index.json"))
}

// ref is an image of the layout.
func (w *world) ref(tag string) string { return "oci:" + filepath.Join(w.dir, "layout") + ":" + tag }

// stored is the text of a manifest as manifest writes it, with an image, volumes, and values
// of the documents that objects has put there under a name.
func (w *world) stored(name string, variant int, objects string) string {
	text := w.manifest(name, variant, fmt.Sprintf(`  envFrom: [{config: {name: %[2]s}, prefix: C_}]
  volumes:
    - {name: data, mountPath: /data, volume: {name: %[1]s}, ownership: {uid: 7, gid: 7, when: onRootMismatch}}
    - {name: sub, mountPath: /sub, volume: {name: %[1]s}, subPath: a/b}
    - {name: conf, mountPath: /conf, config: {name: %[2]s}}
    - {name: keys, mountPath: /keys, secret: {name: %[2]s, mode: "0400"}}
`, name, objects))
	return strings.Replace(text, "root: {dir: "+w.dir+"/rootfs}", "root: {image: {ref: '"+w.ref("v1")+"'}}", 1)
}

// objects puts a Config and a Secret of a name into the directory, which differ from others
// by their variant.
func (w *world) objects(name string, variant int) {
	w.t.Helper()
	w.put(name+".objects", fmt.Sprintf(`apiVersion: sandboxctl.dev/v1alpha1
kind: Config
metadata: {name: %[1]s}
data: {LEVEL: '%[2]d', other: text}
---
apiVersion: sandboxctl.dev/v1alpha1
kind: Secret
metadata: {name: %[1]s}
stringData: {key: 'secret %[2]d'}
`, name, variant))
}

// The faults of images, volumes and documents. What of the stores is lost is what somebody
// has removed or damaged by hand; it is put in order again by hand too, when a window ends.
const (
	loseImage    kind = "lose images"
	loseVolume   kind = "lose or damage a volume"
	moveTag      kind = "move a tag"
	hideLayout   kind = "hide the layout"
	changeObject kind = "change documents"
)

// isStored says of a sandbox that it is of an image and has volumes and documents. The
// bystander has documents that nobody changes.
func isStored(i int) bool { return i >= targets-2 }

func (c *chaos) objectsOf(i int) string {
	if i == bystander {
		return c.prefix + "-calm"
	}
	return c.prefix + "-docs"
}

// text is the manifest of a sandbox.
func (c *chaos) text(i int) string {
	if isStored(i) {
		return c.stored(c.name(i), c.variant, c.objectsOf(i))
	}
	return c.manifest(c.name(i), c.variant, "")
}

// loseImage removes or damages something in the store of images. A file that is in use is
// replaced and not cut: who has it mapped would be killed by the kernel.
func (c *chaos) loseImage(how int) {
	c.lost = true
	images := filepath.Join(c.state, "images")
	var all []string
	for _, pattern := range []string{"*.erofs", "*.json", "refs/*.json"} {
		m, err := filepath.Glob(filepath.Join(images, pattern))
		must(c.t, err)
		all = append(all, m...)
	}
	switch {
	case how%4 == 0 || len(all) == 0:
		_ = os.RemoveAll(images) // a pull may be writing there
	case how%4 == 1:
		_ = os.Remove(all[how%len(all)]) // a pull may have replaced it
	default:
		at := all[how%len(all)]
		b, _ := os.ReadFile(at)
		must(c.t, os.WriteFile(filepath.Join(c.dir, "damaged"), b[:len(b)/2], 0o600))
		_ = os.Rename(filepath.Join(c.dir, "damaged"), at) // the store may have been removed
	}
}

// loseVolume removes or damages the volume of a sandbox.
func (c *chaos) loseVolume(i, how int) {
	name := c.name(i)
	c.spoiled[i], c.touched[name] = true, true
	dir := filepath.Join(c.state, "volumes", name)
	if _, err := os.Stat(dir); err != nil {
		return
	}
	switch how % 5 {
	case 0:
		_ = os.RemoveAll(dir) // a start may be making it
	case 1:
		_ = os.Remove(dir + "/meta.json")
	case 2:
		_ = os.RemoveAll(dir + "/data")
	case 3:
		must(c.t, os.WriteFile(dir+"/meta.json", []byte(`{"version":1,"na`), 0o600))
	case 4:
		_ = os.RemoveAll(dir + "/data")
		_ = os.Symlink("/etc", dir+"/data")
	}
}

// mendStores puts in order what was lost.
func (c *chaos) mendStores() {
	if c.hidden {
		must(c.t, os.Rename(filepath.Join(c.dir, "hidden"), filepath.Join(c.dir, "layout")))
	}
	if c.hidden || c.lost {
		// What is damaged is removed first, as the store says.
		for _, tag := range []string{"v1", "v2"} {
			c.until("the images are there again", func() error {
				out, err := c.run("image", "pull", "-q", c.ref(tag))
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
		}
	}
	c.hidden, c.lost = false, false
	for i, spoiled := range c.spoiled {
		if !spoiled {
			continue
		}
		c.spoiled[i] = false
		// A start may be making files there.
		c.until("the volume is gone", func() error { return os.RemoveAll(filepath.Join(c.state, "volumes", c.name(i))) })
		_, _ = c.run("restart", c.name(i)) // there may be no such sandbox
	}
}
