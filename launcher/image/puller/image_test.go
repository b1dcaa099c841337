// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/image"
	it "sandboxctl.dev/launcher/image/imagetest"
	"sandboxctl.dev/launcher/image/source"
)

func open(t testing.TB, state string, o Options) *Puller {
	t.Helper()
	s, err := image.OpenStore(state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return New(s, o)
}

func resolve(t testing.TB, s *Puller, ref string, pull imageref.PullPolicy) *image.Image {
	t.Helper()
	img, err := s.Resolve(context.Background(), Request{Ref: ref, Pull: pull}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// Names of the files of an image.
const (
	treeSuffix = ".erofs"
	metaSuffix = ".json"
)

func hexOf(img *image.Image) string { return strings.TrimPrefix(img.Digest, "sha256:") }

func write(t testing.TB, path string, b []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func content(t testing.TB, img *image.Image, path string) string {
	t.Helper()
	b, err := img.ReadFile(path, 1<<20)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// lower and upper are the layers of the image of most tests.
var (
	lower = it.Tar(it.Dir("etc/"), it.File("etc/passwd", "root:x:0:0\n"), it.File("etc/gone", ""), it.Symlink("abs", "/etc/passwd"), it.Symlink("etc/rel", "../../../etc/passwd"), it.Symlink("loop", "loop"), it.Symlink("dangling", "/nowhere"))
	upper = it.Tar(it.File("etc/.wh.gone", ""), it.File("version", "1\n"))
	conf  = map[string]any{
		"Entrypoint": []string{"/bin/web"}, "Cmd": []string{"-v"}, "Env": []string{"A=b"}, "User": "web:web", "WorkingDir": "/srv", "StopSignal": "SIGQUIT",
		"ExposedPorts": map[string]any{"443/tcp": map[string]any{}, "80/tcp": map[string]any{}}, "Volumes": map[string]any{"/data": map[string]any{}}, "Labels": map[string]string{"l": "1"},
	}
)

func TestResolveLocal(t *testing.T) {
	t.Parallel()
	config := it.Config(conf, lower, upper)
	for name, ref := range map[string]func(dir string) string{
		"docker archive": func(dir string) string {
			return "archive:" + write(t, dir+"/a.tar", it.DockerArchive([]string{"web:1"}, config, lower, upper))
		},
		"docker archive, its tag": func(dir string) string {
			return "archive:" + write(t, dir+"/a.tar", it.DockerArchive([]string{"web:1"}, config, lower, upper)) + ":1"
		},
		"docker archive, compressed as a whole": func(dir string) string {
			return "archive:" + write(t, dir+"/a.tar.gz", it.Gzip(it.DockerArchive(nil, config, lower, upper)))
		},
		"docker archive, compressed layers": func(dir string) string {
			return "archive:" + write(t, dir+"/a.tar", it.DockerArchive(nil, config, it.Gzip(lower), it.Zstd(upper)))
		},
		"layout": func(dir string) string {
			it.Layout(dir+"/l", "v1", config, lower, it.Gzip(upper))
			return "oci:" + dir + "/l"
		},
		"layout, its tag": func(dir string) string {
			it.Layout(dir+"/l", "example.org/web:v1", config, it.Zstd(lower), upper)
			return "oci:" + dir + "/l:v1"
		},
		"archive of a layout": func(dir string) string {
			it.Layout(dir+"/l", "v1", config, lower, upper)
			return "archive:" + write(t, dir+"/l.tar", it.TarOf(dir+"/l"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir+"/state", Options{})
			img := resolve(t, s, ref(dir), "")
			if got, want := img.Config.Entrypoint[0]+" "+img.Config.Cmd[0]+" "+img.Config.User+" "+strings.Join(img.Config.ExposedPorts, ","), "/bin/web -v web:web 443/tcp,80/tcp"; got != want {
				t.Errorf("configuration: %q, expected %q", got, want)
			}
			for _, p := range []string{"etc/passwd", "/etc/passwd", "abs", "etc/rel"} {
				if got := content(t, img, p); got != "root:x:0:0\n" {
					t.Errorf("%s: %q", p, got)
				}
			}
			for _, p := range []string{"etc/gone", "dangling", "nowhere"} {
				if _, err := img.ReadFile(p, 100); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v, expected that it is missing", p, err)
				}
			}
			for _, p := range []string{"loop", "etc"} {
				if b, err := img.ReadFile(p, 100); err == nil {
					t.Errorf("%s: %q, expected an error", p, b)
				}
			}
			if _, err := img.ReadFile("etc/passwd", 3); err == nil {
				t.Error("a file that is too long is read")
			}
			f, err := img.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if tree, err := it.Tree(f); err != nil || len(tree) != 8 {
				t.Errorf("%d files, %v: %v", len(tree), err, tree)
			}
			found, err := s.Find(img.Digest)
			if err != nil {
				t.Fatal(err)
			}
			found.Close()
			left, err := s.Leftovers()
			if err != nil || left.Pulls != 0 || left.Trees != 0 || left.Bytes != 0 {
				t.Errorf("left: %+v, %v", left, err)
			}
		})
	}
}

func TestPullPolicy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	ref := "archive:" + dir + "/a.tar"
	ask := func(p imageref.PullPolicy) string {
		img, err := s.Resolve(context.Background(), Request{Ref: ref, Pull: p}, nil)
		if err != nil {
			return err.Error()
		}
		defer img.Close()
		return img.Digest
	}
	if got := ask(imageref.PullNever); !strings.Contains(got, "pullPolicy Never") {
		t.Errorf("Never without an image: %s", got)
	}
	one := it.Config(nil, lower)
	write(t, dir+"/a.tar", it.DockerArchive(nil, one, lower))
	for _, p := range []imageref.PullPolicy{imageref.PullIfNotPresent, imageref.PullNever, imageref.PullAlways, ""} {
		if got := ask(p); got != it.Digest(one) {
			t.Errorf("%q: %s", p, got)
		}
	}
	two := it.Config(nil, lower, upper)
	write(t, dir+"/a.tar", it.DockerArchive(nil, two, lower, upper))
	// What was resolved is followed only if that is asked for.
	for _, p := range []imageref.PullPolicy{imageref.PullIfNotPresent, imageref.PullNever, ""} {
		if got := ask(p); got != it.Digest(one) {
			t.Errorf("%q follows: %s", p, got)
		}
	}
	if got := ask(imageref.PullAlways); got != it.Digest(two) {
		t.Errorf("Always does not follow: %s", got)
	}
	if got := ask(""); got != it.Digest(two) {
		t.Errorf("what was resolved last: %s", got)
	}
	// And nobody looks at the file.
	if err := os.Remove(dir + "/a.tar"); err != nil {
		t.Fatal(err)
	}
	if got := ask(""); got != it.Digest(two) {
		t.Errorf("without the file: %s", got)
	}
	if _, err := s.Resolve(context.Background(), Request{Ref: ref, Pull: imageref.PullAlways}, nil); !errors.Is(err, source.ErrMissing) {
		t.Errorf("Always without the file: %v", err)
	}
}

// A configuration that takes more room in the store than is ever read is refused before
// there is an image: JSON writes up to six bytes for one of what it reads.
func TestConfigTooLong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"letters":         {strings.Repeat("a", 4<<20), true},
		"less-than signs": {strings.Repeat("<", 3<<20), false},
		"ampersands":      {strings.Repeat("&", 3<<20), false},
		"lines":           {strings.Repeat("\u2028", 1<<20), true}, // which take twice as much
		"fewer signs":     {strings.Repeat("<", 1<<20), true},
	} {
		raw := it.Config(map[string]any{"Labels": map[string]string{"a": c.text}}, lower)
		for escaped, plain := range map[string]string{`\u003c`: "<", `\u0026`: "&", `\u2028`: "\u2028"} {
			raw = bytes.ReplaceAll(raw, []byte(escaped), []byte(plain))
		}
		dir := t.TempDir()
		archive := write(t, dir+"/a.tar", it.DockerArchive([]string{"a:1"}, raw, lower))
		s := open(t, dir+"/state", Options{})
		img, err := s.Resolve(t.Context(), Request{Ref: "archive:" + archive}, nil)
		if c.ok != (err == nil) || !c.ok && (!errors.Is(err, image.ErrTooLong) || !strings.Contains(err.Error(), "at most 16 are kept")) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			if left, err := filepath.Glob(dir + "/state/images/*.*"); err != nil || len(left) > 0 {
				t.Errorf("%s: %v, %v", name, left, err)
			}
			continue
		}
		img.Close()
		again, err := s.Find(img.Digest)
		if err != nil || again.Config.Labels["a"] != c.text {
			t.Errorf("%s: read again: %v", name, err)
			continue
		}
		again.Close()
	}
}
