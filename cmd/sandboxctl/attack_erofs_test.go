// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	it "sandboxctl.dev/launcher/image/imagetest"
)

// The files of the store are made by this program alone: one that somebody hands it, as an
// import, an archive or a layer, is never served as it is.
func TestForeignEROFS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/root/bin", 0o755))
	must(t, os.WriteFile(dir+"/root/bin/sh", []byte("x"), 0o755))
	run := func(args ...string) (string, error) {
		out, err := exec.Command(filepath.Join(binDir, "sandboxctl"), append([]string{"--state", dir + "/s", "--manifests", dir + "/m", "image"}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := run("import", dir+"/root", "mine:1"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	trees, err := filepath.Glob(dir + "/s/images/*.erofs")
	if err != nil || len(trees) != 1 {
		t.Fatal(trees, err)
	}
	b, err := os.ReadFile(trees[0])
	must(t, err)
	must(t, os.WriteFile(dir+"/crafted", b, 0o644))
	it.Layout(dir+"/layout", "v1", it.Config(nil, b), b)
	must(t, os.WriteFile(dir+"/archive", it.DockerArchive([]string{"crafted:1"}, it.Config(nil, b), b), 0o644))
	for _, args := range [][]string{
		{"import", dir + "/crafted", "crafted:1"}, {"pull", "archive:" + dir + "/crafted"}, {"pull", "oci:" + dir + "/layout:v1"}, {"pull", "archive:" + dir + "/archive"},
	} {
		out, err := run(args...)
		t.Logf("%v: %v %s", args, err, out)
	}
	// It begins with zeros, which is how a tar ends: what comes of it has none of its files.
	trees, err = filepath.Glob(dir + "/s/images/*.erofs")
	must(t, err)
	whole := 0
	for _, p := range trees {
		f, err := os.Open(p)
		must(t, err)
		files, err := it.Tree(f)
		must(t, err)
		f.Close()
		if _, ok := files["bin/sh"]; ok {
			whole++
		}
	}
	if whole != 1 {
		t.Errorf("%d of %d images have the files of the crafted one", whole, len(trees))
	}
}
