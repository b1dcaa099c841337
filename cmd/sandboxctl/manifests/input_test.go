// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired/yamldoc"
)

func TestReadInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	v := verbs{&world.Host{Stdin: strings.NewReader("input")}}
	read := func(in input) ([]byte, error) { return v.readInput(t.Context(), in) }
	if b, err := read(input{path: "-"}); err != nil || string(b) != "input" {
		t.Errorf("%q %v", b, err)
	}
	fifo := filepath.Join(dir, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	if b, err := read(input{path: fifo}); err != nil || len(b) > 0 {
		t.Errorf("a fifo without a writer: %q %v", b, err)
	}
	for _, bad := range []string{dir, filepath.Join(dir, "nosuch")} {
		if _, err := read(input{path: bad}); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
	// Never more than would be refused anyway.
	v.Stdin = endless{}
	if b, err := read(input{path: "-"}); err != nil || len(b) != yamldoc.MaxFileBytes+1 {
		t.Errorf("%d bytes %v", len(b), err)
	}
}

// endless is input without an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// What is found in a directory is read only if it is a regular file there.
func TestReadInputBelow(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir, secret := filepath.Join(top, "m"), filepath.Join(top, "secret")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.WriteFile(secret, []byte("root:secret"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "real.yaml"), []byte("a"), 0o600))
	must(t, os.Symlink("real.yaml", filepath.Join(dir, "inside.yaml")))
	// A fifo that is written to for ever, and one that is never.
	writer, err := os.OpenFile(fifoAt(t, dir, "full.yaml"), os.O_RDWR, 0)
	must(t, err)
	defer writer.Close()
	_, err = writer.WriteString("apiVersion: ")
	must(t, err)
	fifoAt(t, dir, "empty.yaml")
	l, err := net.Listen("unix", filepath.Join(dir, "socket.yaml"))
	must(t, err)
	defer l.Close()
	for name, to := range map[string]string{
		"out.yaml": secret, "relative.yaml": "../secret", "magic.yaml": "/proc/self/fd/0", "device.yaml": "/dev/zero", "loop.yaml": "loop.yaml",
		"directory.yaml": ".", "nowhere.yaml": "nosuch", "fifo.yaml": "full.yaml",
	} {
		must(t, os.Symlink(to, filepath.Join(dir, name)))
	}
	ins, err := expand(dir)
	must(t, err)
	if len(ins) != 13 {
		t.Errorf("%d files: %v", len(ins), ins)
	}
	v := verbs{&world.Host{}}
	for _, in := range ins {
		b, err := v.readInput(t.Context(), in)
		switch base := filepath.Base(in.path); base {
		case "real.yaml", "inside.yaml":
			if err != nil || string(b) != "a" {
				t.Errorf("%s: %q %v", base, b, err)
			}
		default:
			if err == nil || !strings.Contains(err.Error(), base) {
				t.Errorf("%s: %q %v", base, b, err)
			}
		}
	}
}

func fifoAt(t *testing.T, dir, name string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	must(t, unix.Mkfifo(p, 0o600))
	return p
}

// Input that does not come is not waited for once the caller has had enough.
func TestReadInputSlow(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	defer w.Close()
	v := verbs{&world.Host{Stdin: r}}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := v.readInput(ctx, input{path: "-"})
		done <- err
	}()
	if _, err := w.Write([]byte("apiVersion: ")); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	cancel(enough)
	select {
	case err := <-done:
		if !errors.Is(err, enough) {
			t.Error(err)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("it waits for ever")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, f := range []string{"b.yaml", "a.yml", "sub/c.json", "sub/d.txt", ".hidden.yaml", ".git/e.yaml", "f.yaml~"} {
		p := filepath.Join(dir, f)
		must(t, os.MkdirAll(filepath.Dir(p), 0o700))
		must(t, os.WriteFile(p, nil, 0o600))
	}
	ins, err := expand(dir)
	var files []string
	for _, in := range ins {
		files = append(files, strings.TrimPrefix(in.path, dir+"/"))
	}
	if err != nil || !slices.Equal(files, []string{"a.yml", "b.yaml", "sub/c.json"}) {
		t.Errorf("%v %v", files, err)
	}
	for _, one := range []string{"-", filepath.Join(dir, "sub/d.txt"), filepath.Join(dir, ".hidden.yaml")} {
		if files, err := expand(one); err != nil || !slices.Equal(files, []input{{path: one}}) {
			t.Errorf("%s: %v %v", one, files, err)
		}
	}
	// A directory is what is in it also when its own name begins with a dot.
	if files, err := expand(filepath.Join(dir, ".git")); err != nil || len(files) != 1 {
		t.Errorf("%v %v", files, err)
	}
	if _, err := expand("https://example.com/web.yaml"); err == nil || !strings.Contains(err.Error(), "curl -fsS https://example.com/web.yaml | sandboxctl apply -f -") {
		t.Errorf("a URL: %v", err)
	}
	if _, err := expand(filepath.Join(dir, "nosuch")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := expand(t.TempDir()); err == nil {
		t.Error("a directory without manifests is fine")
	}
}
