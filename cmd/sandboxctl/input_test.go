// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired/yamldoc"
)

func TestReadInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := &app{stdin: strings.NewReader("input")}
	read := func(in input) ([]byte, error) { return a.readInput(t.Context(), in) }
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
	a.stdin = endless{}
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
	a := &app{}
	for _, in := range ins {
		b, err := a.readInput(t.Context(), in)
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
	a := &app{stdin: r}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := a.readInput(ctx, input{path: "-"})
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

// Nothing that an error quotes is obeyed by a terminal.
func TestErrorsAreClean(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"\x1b[2J.yaml", "\u009b2J.yaml", "\x07.yaml", "\u202e.yaml"} {
		must(t, os.Symlink("nosuch", filepath.Join(dir, name)))
		for _, args := range [][]string{
			{"validate", filepath.Join(dir, name)},
			{"validate", dir},
			{"apply", "-f", dir},
			{"get", name},
			{"logs", name},
			{name},
			{"--state", filepath.Join(dir, name), "logs", "a"},
			{"--manifests", filepath.Join(dir, name), "validate"},
		} {
			var out, errs bytes.Buffer
			a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
			all := append([]string{"--state", filepath.Join(dir, "none"), "--manifests", filepath.Join(dir, "none")}, args...)
			if code := a.run(t.Context(), all); code == 0 {
				t.Errorf("%q succeeds", args)
			}
			for l := range strings.Lines(out.String() + errs.String()) {
				if i := strings.IndexFunc(strings.TrimSuffix(l, "\n"), untrusted.Obeyed); i >= 0 {
					t.Errorf("%q: %q", args, l)
				}
			}
		}
	}
}
