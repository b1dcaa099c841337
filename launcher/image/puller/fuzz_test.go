// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"context"
	"os"
	"testing"

	it "sandboxctl.dev/launcher/image/imagetest"
	"sandboxctl.dev/launcher/image/layers"
)

// FuzzArchive pulls whatever comes as an archive: it is refused and leaves nothing, or
// becomes an image that can be read.
func FuzzArchive(f *testing.F) {
	config := it.Config(conf, lower, upper)
	f.Add(it.DockerArchive([]string{"web:1"}, config, lower, upper))
	f.Add(it.DockerArchive(nil, config, it.Gzip(lower), it.Zstd(upper)))
	f.Add(it.Gzip(it.DockerArchive(nil, config, lower, upper)))
	dir := f.TempDir()
	it.Layout(dir+"/l", "v1", config, lower, upper)
	f.Add(it.TarOf(dir + "/l"))
	f.Add(it.Tar(it.Symlink("c", "/etc/passwd"), it.File("manifest.json", `[{"Config":"c"}]`)))
	f.Add(it.Tar(it.File("index.json", `{"manifests":[{"digest":"sha256:../../x"}]}`)))
	s := open(f, dir+"/s", Options{Limits: layers.Limits{Entries: 1000, Bytes: 1 << 20, Text: 1 << 20}})
	f.Fuzz(func(t *testing.T, b []byte) {
		path := dir + "/a.tar"
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := s.Resolve(context.Background(), Request{Ref: "archive:" + path, Pull: "Always"}, nil)
		if err == nil {
			file, err := img.Open()
			if err == nil {
				_, err = it.Tree(file)
				file.Close()
			}
			if err != nil {
				t.Errorf("it can't be read: %v", err)
			}
			img.Close()
			if _, _, err := s.Prune(context.Background(), everything, nobody); err != nil {
				t.Error(err)
			}
		}
		empty(t, dir+"/s")
	})
}
