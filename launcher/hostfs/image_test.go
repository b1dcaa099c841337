// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"sandboxctl.dev/launcher/setup"
)

// What the daemon reads of an image is a regular file of bounded size, or nothing.
func TestImageUsers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file   *fstest.MapFile
		passwd string
		err    string
	}{
		"none":        {nil, "", ""},
		"one":         {&fstest.MapFile{Data: []byte("root:x:0:0::/:\n")}, "root:x:0:0::/:\n", ""},
		"empty":       {&fstest.MapFile{}, "", ""},
		"large":       {&fstest.MapFile{Data: []byte(strings.Repeat("x", maxUserFile+1))}, "", "it has more than 1048576 bytes"},
		"a directory": {&fstest.MapFile{Mode: fs.ModeDir | 0o755}, "", "no regular file"},
		"a FIFO":      {&fstest.MapFile{Mode: fs.ModeNamedPipe | 0o644}, "", "no regular file"},
	} {
		tree := fstest.MapFS{}
		if c.file != nil {
			tree["etc/passwd"] = c.file
		}
		img := &Image{Image: &setup.Image{}, Tree: tree}
		err := img.ReadUsers()
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || string(img.Passwd) != c.passwd || (img.Passwd == nil) != (c.file == nil) || img.Group != nil {
			t.Errorf("%s: %q %v", name, img.Passwd, err)
		}
	}
}
