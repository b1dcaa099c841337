// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"os"
	"strings"
	"testing"

	"sandboxctl.dev/desired/imageref"
)

// FuzzStore: whatever the files of the store say, what is read is about the image or the
// reference that was asked for, and everything else is damage that a pull mends.
func FuzzStore(f *testing.F) {
	const ref = "docker.io/library/web:1"
	hex := strings.Repeat("0", 64)
	f.Add([]byte("{\n\t\"version\": 1,\n\t\"digest\": \"sha256:" + hex + "\",\n\t\"bytes\": 4\n}"))
	f.Add([]byte("{\n\t\"bytes\": 4,\n\t\"config\": {\"env\": [\"A=b\"]},\n\t\"version\": 1,\n\t\"digest\": \"sha256:" + hex + "\"\n}"))
	f.Add([]byte("{\"bytes\": -1, \"version\": 1, \"digest\": \"sha256:" + hex + "\"\n}"))
	f.Add([]byte("{\"bytes\": 4, \"version\": 2, \"digest\": \"sha256:" + strings.Repeat("1", 64) + "\"\n}"))
	f.Add([]byte("[\n}"))
	f.Add([]byte(`{"ref":"` + ref + `","digest":"sha256:` + hex + `","resolved":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"ref":"` + ref + `","digest":"../../x"}`))
	f.Add([]byte(`{"ref":"elsewhere","digest":"sha256:` + hex + `"}`))
	f.Add([]byte("{"))
	state := f.TempDir()
	s, err := OpenStore(state + "/s")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	dir := state + "/s/" + Directory + "/"
	parsed, err := imageref.Parse(ref)
	if err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(dir+hex+treeSuffix, []byte("tree"), 0o400); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range []string{hex + metaSuffix, refsDir + "/" + tagFile(ref)} {
			if err := os.WriteFile(dir+p, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		img, err := s.Find("sha256:" + hex)
		switch {
		case err == nil && (img.Digest != "sha256:"+hex || img.Info.Bytes != 4):
			t.Errorf("%+v", img.Info)
		case err != nil && !errors.Is(err, ErrDamaged):
			t.Errorf("found: %v", err)
		}
		if err == nil {
			img.Close()
		}
		if i, err := s.outline(hex); err == nil && i.Digest != "sha256:"+hex {
			t.Errorf("%+v", i)
		} else if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("outline: %v", err)
		}
		digest, err := s.Meaning(parsed)
		if _, ok := plain(digest); err == nil && !ok || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("it means %q: %v", digest, err)
		}
		entries, err := s.List()
		if err != nil || len(entries) != 1 || entries[0].Digest != "sha256:"+hex {
			t.Errorf("%+v %v", entries, err)
		}
		if _, err := s.Leftovers(); err != nil {
			t.Error(err)
		}
	})
}
