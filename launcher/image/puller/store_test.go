// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/image"
	it "sandboxctl.dev/launcher/image/imagetest"
	"sandboxctl.dev/launcher/image/layers"
	"sandboxctl.dev/launcher/image/source"
)

func nobody() (map[string]bool, error) { return nil, nil }

func everything(*image.Entry) bool { return false }

// put makes an image with one file of this content.
func put(t testing.TB, s *Puller, name, text string) *image.Image {
	t.Helper()
	img, err := s.Import(context.Background(), "local:"+name, strings.NewReader(string(it.Tar(it.File("f", text)))), image.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

func refs(t testing.TB, s *Puller) (out []string) {
	t.Helper()
	for _, e := range must(s.List()) {
		if e.Problem != "" {
			t.Errorf("%s: %s", e.Digest, e.Problem)
		}
		out = append(out, strings.Join(e.Refs, "+"))
	}
	return out
}

func TestRemove(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	a, b := put(t, s, "a", "a"), put(t, s, "b", "b")
	again := put(t, s, "a2", "a")
	if again.Digest != a.Digest {
		t.Error("the same root is another image")
	}
	again.Close()
	// A program that has an image keeps it, also against another program.
	other := open(t, dir, Options{})
	if err := other.Remove(ctx, a.Digest, nobody); !errors.Is(err, image.ErrInUse) {
		t.Errorf("in use: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	// So does a record.
	used := func() (map[string]bool, error) { return map[string]bool{b.Digest: true}, nil }
	if err := other.Remove(ctx, b.Digest, used); !errors.Is(err, image.ErrInUse) {
		t.Errorf("on record: %v", err)
	}
	if _, _, err := other.Prune(ctx, everything, used); err != nil {
		t.Error(err)
	}
	// Records that can't be read may name any.
	broken := errors.New("broken")
	if _, _, err := other.Prune(ctx, everything, func() (map[string]bool, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("without the records: %v", err)
	}
	if got := refs(t, s); !slices.Equal(got, []string{"local:a+local:a2", "local:b"}) {
		t.Errorf("there is %v", got)
	}
	if got := content(t, a, "f"); got != "a" {
		t.Errorf("%q", got)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	removed, freed, err := other.Prune(ctx, func(e *image.Entry) bool { return slices.Contains(e.Refs, "local:b") }, nobody)
	if err != nil || !slices.Equal(removed, []string{a.Digest}) || freed < 4096 {
		t.Errorf("pruned %v, %d bytes, %v", removed, freed, err)
	}
	if err := other.Remove(ctx, b.Digest, nobody); err != nil {
		t.Error(err)
	}
	for _, digest := range []string{a.Digest, b.Digest} {
		if _, err := s.Find(digest); !errors.Is(err, image.ErrNotFound) {
			t.Errorf("%s: %v", digest, err)
		}
		if err := s.Remove(ctx, digest, nobody); !errors.Is(err, image.ErrNotFound) {
			t.Errorf("%s: %v", digest, err)
		}
	}
	if _, err := s.Resolve(ctx, Request{Ref: "local:a", Pull: imageref.PullAlways}, nil); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("a reference to what is gone: %v", err)
	}
	empty(t, dir)
}

// empty says what is in a store without images.
func empty(t testing.TB, state string) {
	t.Helper()
	var left []string
	err := filepath.WalkDir(filepath.Join(state, image.Directory), func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() || strings.Contains(p, "pulls"+"/") {
			left = append(left, p)
		}
		return err
	})
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What a program that was killed leaves is removed by the next one, and nothing of those
// that live.
func TestSweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	img := put(t, s, "a", "a")
	at := func(p string) string { return filepath.Join(dir, image.Directory, p) }
	old := strings.Repeat("0", 64)
	write(t, at(atomicfile.TempPrefix+"0011"), []byte("half"))
	write(t, at("refs/"+atomicfile.TempPrefix+"0011"), nil)
	write(t, at("pulls/"+atomicfile.TempPrefix+"0011"), nil)
	write(t, at(old+treeSuffix), []byte("a tree that was not finished"))
	write(t, at("pulls/"+old+"/blob-1"), []byte("layer"))
	write(t, at("pulls/"+hexOf(img)+"/blob-1"), []byte("layer of an image that is there"))
	write(t, at("pulls/"+strings.Repeat("1", 64)+"/part-1"), []byte("new"))
	past := unix.Timespec{Sec: 1_000_000_000}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, at("pulls/"+old), []unix.Timespec{past, past}, 0); err != nil {
		t.Fatal(err)
	}
	// Those of a program that lives.
	live, err := s.begin()
	if err != nil {
		t.Fatal(err)
	}
	defer live.out.Discard()
	claim, err := s.Lock(context.Background(), "sha256:"+strings.Repeat("2", 64), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer claim.End(false)
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, at("pulls/"+strings.Repeat("2", 64)), []unix.Timespec{past, past}, 0); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
	var left []string
	for _, d := range []string{"", "pulls"} {
		entries, err := os.ReadDir(at(d))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			left = append(left, e.Name())
		}
	}
	slices.Sort(left)
	want := []string{hexOf(img) + metaSuffix, hexOf(img) + treeSuffix, filepath.Base(live.out.Name()), strings.Repeat("1", 64), strings.Repeat("2", 64), "pulls", "refs"}
	slices.Sort(want)
	if !slices.Equal(left, want) {
		t.Errorf("left: %v, expected %v", left, want)
	}
	// What is not old yet goes when that is asked for.
	if _, freed, err := s.Prune(context.Background(), everything, nobody); err != nil || freed != 3 {
		t.Errorf("%d bytes, %v", freed, err)
	}
}

// A program that was stopped while it had an image alone holds up nobody for long, and
// what nobody can remove keeps nobody from the images.
func TestHeldUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	a, b := put(t, s, "a", "a"), put(t, s, "b", "b")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	stopped, err := s.Lock(context.Background(), a.Digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	tree := must(os.Open(filepath.Join(dir, image.Directory, hexOf(a)+treeSuffix)))
	if err := unix.Flock(int(tree.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(a.Digest); !errors.Is(err, image.ErrBusy) {
		t.Errorf("%v, expected that it is busy", err)
	}
	if got := content(t, b, "f"); got != "b" {
		t.Errorf("%q", got)
	}
	tree.Close()
	if err := stopped.End(true); err != nil {
		t.Fatal(err)
	}
	found, err := s.Find(a.Digest)
	if err != nil {
		t.Fatal(err)
	}
	found.Close()
	for _, p := range []string{"/images/pulls/file", "/images/refs/file", "/images/file", "/images/" + strings.Repeat("0", 64) + treeSuffix + "/in/the/way"} {
		write(t, dir+p, nil)
	}
	s = open(t, dir, Options{})
	if got := refs(t, s); !slices.Equal(got, []string{"local:a", "local:b"}) {
		t.Errorf("there is %v", got)
	}
	if _, _, err := s.Prune(context.Background(), func(*image.Entry) bool { return true }, nobody); err != nil {
		t.Error(err)
	}
}

// A store that something has happened to says so, and is mended by another pull.
func TestDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"a tree that is shorter":   func(p string) error { return os.Truncate(p+treeSuffix, 100) },
		"no tree":                  func(p string) error { return os.Remove(p + treeSuffix) },
		"a description of rubbish": func(p string) error { return os.WriteFile(p+metaSuffix, []byte("{"), 0o600) },
		"the description of another": func(p string) error {
			return os.WriteFile(p+metaSuffix, []byte(`{"version":1,"digest":"sha256:00"}`), 0o600)
		},
		"a later version": func(p string) error { return os.WriteFile(p+metaSuffix, []byte(`{"version":2}`), 0o600) },
		"a fifo":          func(p string) error { return errors.Join(os.Remove(p+metaSuffix), unix.Mkfifo(p+metaSuffix, 0o600)) },
		"a link": func(p string) error {
			return errors.Join(os.Remove(p+treeSuffix), os.Symlink("/etc/passwd", p+treeSuffix))
		},
		"a description without its end": func(p string) error {
			st, err := os.Stat(p + metaSuffix)
			if err != nil {
				return err
			}
			return os.Truncate(p+metaSuffix, st.Size()-3)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, Options{})
			config := it.Config(nil, lower)
			ref := "archive:" + write(t, dir+"/a.tar", it.DockerArchive(nil, config, lower))
			img := resolve(t, s, ref, "")
			img.Close()
			if !s.Has(img.Digest) {
				t.Error("it is not seen")
			}
			if err := damage(filepath.Join(dir, image.Directory, hexOf(img))); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Find(img.Digest); err == nil || s.Has(img.Digest) {
				t.Errorf("nothing is wrong: %v, %v", err, s.Has(img.Digest))
			}
			if all := must(s.List()); len(all) != 1 || all[0].Problem == "" {
				t.Errorf("listed: %+v", all)
			}
			// What a pull that is to mend it has fetched stays for its next try.
			write(t, filepath.Join(dir, image.Directory, "pulls", hexOf(img), "part-1"), []byte("half"))
			s = open(t, dir, Options{})
			if left := must(s.Leftovers()); left.Pulls != 1 {
				t.Errorf("of a pull that has not ended is left: %+v", left)
			}
			if name == "a fifo" || name == "a link" {
				return // nothing is written over what is no file of ours
			}
			if _, err := s.Resolve(t.Context(), Request{Ref: ref, Pull: imageref.PullNever}, nil); err == nil {
				t.Error("it is mended, although nothing is to be fetched")
			}
			if got := content(t, resolve(t, s, ref, imageref.PullIfNotPresent), "etc/passwd"); got == "" || !s.Has(img.Digest) {
				t.Error("it is not mended")
			}
		})
	}
}

// The configuration of an image may be long. It is not read to see that the image is
// there, which the loop does in each of its passes.
func TestHasReadsLittle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	labels := map[string]string{}
	for i := range 50000 {
		labels[fmt.Sprint("label", i)] = strings.Repeat("x", 50)
	}
	img, err := s.Import(t.Context(), "local:a", bytes.NewReader(it.Tar(it.File("f", "a"))), image.Config{Labels: labels}, nil)
	if err != nil {
		t.Fatal(err)
	}
	img.Close()
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !s.Has(img.Digest) {
				b.Fatal("it is not there")
			}
		}
	})
	if n := result.AllocedBytesPerOp(); n > 64<<10 {
		t.Errorf("%d bytes of memory to see that an image is there", n)
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir+"/s", Options{})
	root := dir + "/root"
	write(t, root+"/etc/hostname", []byte("web\n"))
	for _, err := range []error{
		os.Link(root+"/etc/hostname", root+"/again"), os.Symlink("/etc/passwd", root+"/out"), os.Symlink("../../..", root+"/up"),
		unix.Mkfifo(root+"/fifo", 0o600), unix.Chmod(root+"/etc/hostname", 0o4711), os.Lchown(root+"/out", 5, 6),
		unix.Mknod(root+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
	} {
		if err != nil && os.Geteuid() == 0 {
			t.Fatal(err)
		}
	}
	img, err := s.ImportDirectory(context.Background(), "local:a", root, image.Config{Cmd: []string{"sh"}, User: "1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	f, err := img.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, err := it.Tree(f)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"again": "-rwx--x--x 0:0 links 2 4 bytes", "etc/hostname": "links 2 4 bytes", "out": "5:6 links 1 -> /etc/passwd", "up": "-> ../../..", "fifo": "p"} {
		if !strings.Contains(tree[p], want) {
			t.Errorf("%s: %q, expected %q", p, tree[p], want)
		}
	}
	if len(tree) != 7 || img.Config.Cmd[0] != "sh" || img.Config.User != "1" {
		t.Errorf("%v %+v", tree, img.Config)
	}
	// Another name, and another configuration.
	again, err := s.ImportDirectory(context.Background(), "local:b", root, image.Config{Cmd: []string{"sh"}, User: "1"}, nil)
	if err != nil || again.Digest != img.Digest {
		t.Errorf("the same again: %v", err)
	}
	again.Close()
	other, err := s.ImportDirectory(context.Background(), "local:b", root, image.Config{}, nil)
	if err != nil || other.Digest == img.Digest {
		t.Errorf("another configuration: %v", err)
	}
	other.Close()
	for _, ref := range []string{"web", "docker.io/web:1", "archive:/x", "local:"} {
		if _, err := s.Import(context.Background(), ref, strings.NewReader(""), image.Config{}, nil); !errors.Is(err, imageref.ErrInvalid) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := s.Import(context.Background(), "local:c", strings.NewReader("this is no tar, but it is longer than a block of one"+strings.Repeat(".", 1000)), image.Config{}, nil); !errors.Is(err, layers.ErrInvalid) {
		t.Errorf("no tar: %v", err)
	}
}

// A disk that gets full ends the pull, and nothing of it is left.
func TestDiskFull(t *testing.T) {
	hosttest.NeedsRoot(t, "only root can mount a small disk")
	t.Parallel()
	disk, elsewhere := t.TempDir(), t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := open(t, disk, Options{})
	f := newFake(t)
	big := noise(3 << 20)
	f.push(t, "web", "1", it.Config(nil, big), big)
	// It has room for the layer, and not for what it becomes.
	unpacked := it.Tar(it.File("text", strings.Repeat("0123456789abcdef", 1<<18)))
	f.push(t, "web", "text", it.Config(nil, unpacked), it.Gzip(unpacked))
	archive := write(t, elsewhere+"/a.tar", it.DockerArchive(nil, it.Config(nil, big, unpacked), big, unpacked))
	small := write(t, elsewhere+"/small.tar", it.DockerArchive(nil, it.Config(nil, lower), lower))
	compressed := write(t, elsewhere+"/a.tar.gz", it.Gzip(it.DockerArchive(nil, it.Config(nil, unpacked), unpacked)))
	for _, ref := range []string{f.host() + "/web:1", f.host() + "/web:text", "archive:" + archive, "archive:" + compressed} {
		_, err := s.Resolve(context.Background(), Request{Ref: ref}, nil)
		if !errors.Is(err, image.ErrDiskFull) {
			t.Errorf("%s: %v", ref, err)
		}
		if _, _, err := s.Prune(context.Background(), everything, nobody); err != nil {
			t.Error(err)
		}
		empty(t, disk)
	}
	resolve(t, s, "archive:"+small, "")
}

// What fills the disk can be removed: that needs no room, no inode and no quota.
func TestRemoveOnFullDisk(t *testing.T) {
	t.Parallel()
	for _, remove := range []func(*Puller, *image.Image) error{
		func(s *Puller, img *image.Image) error { return s.Remove(t.Context(), img.Digest, nobody) },
		func(s *Puller, _ *image.Image) error {
			removed, freed, err := s.Prune(t.Context(), everything, nobody)
			if err == nil && (len(removed) != 1 || freed == 0) {
				err = fmt.Errorf("removed %v, freed %d", removed, freed)
			}
			return err
		},
	} {
		disk := t.TempDir()
		if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4m,nr_inodes=64,mode=700"); err != nil {
			t.Fatal(err) // run as root
		}
		t.Cleanup(func() {
			if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		s := open(t, disk, Options{})
		img := put(t, s, "a", "a")
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
		var full error
		for i := 0; full == nil; i++ {
			full = os.Mkdir(fmt.Sprintf("%s/%d", disk, i), 0o700)
		}
		if !errors.Is(full, unix.ENOSPC) {
			t.Fatal(full)
		}
		// Another program opens the store: it is there, and needs nothing.
		again := open(t, disk, Options{})
		if _, err := again.Import(t.Context(), "local:b", bytes.NewReader(it.Tar(it.File("f", "b"))), image.Config{}, nil); !errors.Is(err, image.ErrDiskFull) {
			t.Errorf("an import on a full disk: %v", err)
		}
		if err := remove(again, img); err != nil {
			t.Errorf("an image on a full disk: %v", err)
		}
		empty(t, disk)
	}
}

func TestArchiveFaults(t *testing.T) {
	t.Parallel()
	config := it.Config(nil, lower)
	for name, c := range map[string]struct {
		archive []byte
		want    error
		says    string
	}{
		"an empty file":               {nil, source.ErrInvalid, "empty"},
		"no tar":                      {[]byte(strings.Repeat("x", 2000)), source.ErrInvalid, "archive of docker"},
		"another tar":                 {lower, source.ErrInvalid, "image import"},
		"cut in the middle":           {it.DockerArchive(nil, config, lower)[:1500], source.ErrInvalid, ""},
		"another layer":               {it.DockerArchive(nil, config, upper), layers.ErrDigest, "expected " + it.Digest(lower)},
		"fewer layers":                {it.DockerArchive(nil, config), source.ErrInvalid, "0 layers"},
		"a manifest of rubbish":       {it.Tar(it.File("manifest.json", "[")), source.ErrInvalid, "manifest.json"},
		"no image":                    {it.Tar(it.File("manifest.json", "[]")), source.ErrMissing, "no image"},
		"no configuration":            {it.Tar(it.File("manifest.json", `[{"Config":"c"}]`)), source.ErrMissing, "c is not in the archive"},
		"a configuration elsewhere":   {it.Tar(it.Symlink("c", "/etc/passwd"), it.File("manifest.json", `[{"Config":"c"}]`)), source.ErrMissing, ""},
		"links in a circle":           {it.Tar(it.Symlink("c", "d"), it.Symlink("d", "c"), it.File("manifest.json", `[{"Config":"c"}]`)), source.ErrInvalid, "links"},
		"a manifest as configuration": {it.DockerArchive(nil, []byte(`{"schemaVersion":2,"config":{},"layers":[]}`)), source.ErrInvalid, "no layers"},
		"several images":              {it.Tar(it.File("manifest.json", `[{"Config":"c","RepoTags":["a:1"]},{"Config":"d","RepoTags":["b:1"]}]`)), imageref.ErrInvalid, "a:1, b:1"},
		"a layout of nothing":         {it.Tar(it.File("index.json", `{}`)), source.ErrMissing, "no image"},
		"a layout of two with a tag":  {it.Tar(it.File("index.json", `{"manifests":[{"annotations":{"io.containerd.image.name":"docker.io/a/web:1","org.opencontainers.image.ref.name":"1"}},{"annotations":{"io.containerd.image.name":"docker.io/a/db:1","org.opencontainers.image.ref.name":"1"}}]}`)), imageref.ErrInvalid, "db:1, web:1"},
		"a damaged layer":             {it.DockerArchive(nil, config, append(it.Gzip(lower)[:60], it.Gzip(lower)[61:]...)), layers.ErrInvalid, ""},
		"xz as a whole":               {[]byte("\xfd7zXZ...."), source.ErrInvalid, "xz"},
		"zeros, compressed":           {zeros(1200 << 20), layers.ErrLimit, "have become"},
		"a window of gigabytes":       {wide(), source.ErrInvalid, "window"},
		"xz":                          {it.DockerArchive(nil, config, []byte("\xfd7zXZ....")), layers.ErrInvalid, "xz"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, Options{})
			ref := "archive:" + write(t, dir+"/a.tar", c.archive)
			_, err := s.Resolve(context.Background(), Request{Ref: ref}, nil)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(fmt.Sprint(err), dir) {
				t.Errorf("%v, expected %v with %q", err, c.want, c.says)
			}
			empty(t, dir)
		})
	}
	s := open(t, t.TempDir(), Options{})
	fifo := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// Nobody writes the fifo: it must not be waited for.
	for _, ref := range []string{"archive:" + fifo, "archive:/dev/zero", "archive:/", "archive:/nowhere", "oci:/nowhere", "oci:/etc"} {
		if _, err := s.Resolve(context.Background(), Request{Ref: ref}, nil); err == nil {
			t.Errorf("%s is an image", ref)
		}
	}
}

func TestRegistriesFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for text, ok := range map[string]bool{
		"registries: {docker.io: {mirrors: [m.example:5000]}}": true, "": true,
		"registries: {docker.io: {mirror: [m]}}": false, "registry: {}": false, "registries: {'a b': {}}": false, "a: 1\n---\nregistries: {}": false,
		"registries: {docker.io: {mirrors: ['https://m']}}": false,
	} {
		h, err := LoadRegistries(write(t, dir+"/r.yaml", []byte(text)))
		if (err == nil) != ok {
			t.Errorf("%q: %v, %v", text, h, err)
		}
	}
	// Somebody else could say who is trusted.
	if err := os.Chmod(dir+"/r.yaml", 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadRegistries(dir + "/r.yaml"); err == nil {
		t.Error("a file that anybody may write is read")
	}
	s := open(t, dir, Options{RegistriesFile: dir + "/r.yaml"})
	if _, err := s.Resolve(context.Background(), Request{Ref: "a.example/b"}, nil); err == nil || !strings.Contains(err.Error(), "registries") {
		t.Errorf("%v", err)
	}
}

// wide is a frame of zstd that asks for a window of 2 GiB to be decompressed.
func wide() []byte {
	const window = 21 << 3 // the exponent, less 10
	return []byte{0x28, 0xb5, 0x2f, 0xfd, 0, window, 3, 0, 0, 'x'}
}

// zeros are many of them in a frame of zstd, which has 4 bytes for 128 KiB.
func zeros(n int) []byte {
	const block, window, rle = 128 << 10, 7 << 3, 1 << 1
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, window}
	for range n / block {
		b = append(b, rle|block<<3&0xff, block<<3>>8&0xff, block<<3>>16, 0)
	}
	return append(b, 1, 0, 0)
}

// An image in a file is not the root of one, and an import ends although nothing comes.
func TestImportRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir+"/state", Options{})
	it.Layout(dir+"/l", "v1", it.Config(nil, lower), lower)
	write(t, dir+"/l/oci-layout", []byte("{}"))
	saved := it.Tar(it.File("manifest.json", "[]"), it.File("repositories", "{}"), it.Dir("a/"))
	for name, b := range map[string][]byte{"docker save": saved, "compressed": it.Gzip(saved), "a layout": it.TarOf(dir + "/l")} {
		_, err := s.Import(context.Background(), "local:a", bytes.NewReader(b), image.Config{}, nil)
		if !errors.Is(err, source.ErrInvalid) || !strings.Contains(err.Error(), "image pull") {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	silent, writer := io.Pipe()
	defer writer.Close()
	wrote := make(chan error, 1)
	go func() {
		_, err := writer.Write(lower[:512])
		cancel()
		wrote <- err
	}()
	if _, err := s.Import(ctx, "local:a", silent, image.Config{}, nil); !errors.Is(err, context.Canceled) || <-wrote != nil {
		t.Errorf("interrupted: %v", err)
	}
	empty(t, dir+"/state")
}

// Who looks at an image, as a daemon does all the time, keeps nobody from its removal.
func TestRemoveWhileLookedAt(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Options{})
	for name, remove := range map[string]func(digest string) error{
		"rm": func(digest string) error { return s.Remove(context.Background(), digest, nobody) },
		"prune": func(string) error {
			removed, _, err := s.Prune(context.Background(), func(*image.Entry) bool { return false }, nobody)
			if len(removed) != 1 {
				err = errors.Join(err, fmt.Errorf("%d images were removed", len(removed)))
			}
			return err
		},
	} {
		img, err := s.Import(context.Background(), "local:"+name, bytes.NewReader(it.Tar(it.File(name, ""))), image.Config{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		looked := time.AfterFunc(10*time.Millisecond, func() { img.Close() })
		if err := remove(img.Digest); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		looked.Stop()
	}
}

// A link in a layout reads nothing of the host, whatever its content.
func TestLayoutLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir+"/state", Options{})
	it.Layout(dir+"/real", "v1", it.Config(nil, lower), lower)
	it.Layout(dir+"/links", "v1", it.Config(nil, lower), lower)
	blobs, err := os.ReadDir(dir + "/links/blobs/sha256")
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{dir + "/real/blobs/sha256/", "../../../real/blobs/sha256/", "/etc/passwd#"} {
		for _, b := range blobs {
			link := dir + "/links/blobs/sha256/" + b.Name()
			target, _, _ := strings.Cut(to+b.Name(), "#")
			if err := errors.Join(os.Remove(link), os.Symlink(target, link)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := s.Resolve(context.Background(), Request{Ref: "oci:" + dir + "/links"}, nil)
		if !errors.Is(err, source.ErrInvalid) || !strings.Contains(err.Error(), "cp -rL") {
			t.Errorf("%s: %v", to, err)
		}
	}
	empty(t, dir+"/state")
}

// Who may write below the path of a host policy leads a pull to nothing else by a link.
func TestBeneath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return dir + "/allowed/" + name }
	config := it.Config(nil, lower)
	for _, d := range []string{dir + "/secret", in("real"), in("deep/er/real")} {
		it.Layout(d, "v1", config, lower)
	}
	write(t, dir+"/secret.tar", it.DockerArchive([]string{"a:1"}, config, lower))
	write(t, in("real.tar"), it.DockerArchive([]string{"a:1"}, config, lower))
	for name, target := range map[string]string{
		"out": dir + "/secret", "up": "../secret", "inside": "real", "here": ".", "top": "/", "loop": "loop",
		"out.tar": dir + "/secret.tar", "up.tar": "../secret.tar", "fd": "/proc/self/root" + dir + "/secret", "../alias": "allowed",
	} {
		if err := os.Symlink(target, in(name)); err != nil {
			t.Fatal(err)
		}
	}
	allowed := dir + "/allowed"
	for _, c := range []struct{ beneath, ref, want string }{
		{allowed, "oci:" + in("real"), ""},
		{allowed, "oci:" + in("deep/er/real:v1"), ""},
		{allowed, "archive:" + in("real.tar"), ""},
		{in("real"), "oci:" + in("real"), ""},
		{in("real.tar"), "archive:" + in("real.tar:1"), ""},
		{"", "oci:" + in("out"), ""}, // an operator's own choice
		{"", "archive:" + in("up.tar"), ""},
		{allowed, "oci:" + in("out"), "is a symbolic link"},
		{allowed, "oci:" + in("up"), "is a symbolic link"},
		{allowed, "oci:" + in("inside"), "is a symbolic link"},
		{allowed, "oci:" + in("here/real"), "is a symbolic link"},
		{allowed, "oci:" + in("top") + dir + "/secret", "is a symbolic link"},
		{allowed, "oci:" + in("loop"), "is a symbolic link"},
		{allowed, "oci:" + in("fd"), "is a symbolic link"},
		{allowed, "archive:" + in("out.tar"), "is a symbolic link"},
		{allowed, "archive:" + in("up.tar:1"), "is a symbolic link"},
		{allowed, "archive:" + in("here/real.tar"), "is a symbolic link"},
		{dir + "/alias", "oci:" + dir + "/alias/real", "is a symbolic link"},
		{in("out"), "oci:" + in("out"), "is a symbolic link"},
		{allowed, "oci:" + dir + "/secret", "is not below"},
		{allowed, "archive:" + dir + "/secret.tar", "is not below"},
		{allowed, "oci:" + in("none"), "no such image"},
		{dir + "/none", "oci:" + dir + "/none/x", "no such image"},
	} {
		s := open(t, t.TempDir(), Options{Beneath: c.beneath})
		img, err := s.Resolve(t.Context(), Request{Ref: c.ref}, nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s beneath %q: %v, expected %q", c.ref, c.beneath, err, c.want)
		}
		if img != nil {
			img.Close()
		}
	}
}
