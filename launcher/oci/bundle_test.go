// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// within fails the test if fn has not returned in time.
func within(t *testing.T, limit time.Duration, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		t.Fatalf("it has not returned after %s", limit)
		return nil
	}
}

// Each reader takes what is good JSON of its type, whole, and nothing else.
func TestReadFiles(t *testing.T) {
	t.Parallel()
	readers := map[string]struct {
		good, wrong string
		// read returns something that good sets.
		read func(dir, path string) (string, error)
	}{
		"bundle": {`{"hostname": "web", "unheard-of": 1}`, `{"hostname": 1}`, func(dir, _ string) (string, error) {
			cfg, err := readBundle(dir)
			if err != nil {
				return "", err
			}
			return cfg.Hostname, nil
		}},
		"process": {`{"cwd": "web"}`, `{"cwd": []}`, func(_, path string) (string, error) {
			p, err := ReadProcess(path)
			if err != nil {
				return "", err
			}
			return p.Cwd, nil
		}},
		"resources": {`{"unified": {"a": "web"}}`, `{"unified": "a"}`, func(_, path string) (string, error) {
			var r specs.LinuxResources
			err := ReadResources(path, strings.NewReader(`{"unified": {"a": "stdin"}}`), &r)
			return r.Unified["a"], err
		}},
	}
	for name, r := range readers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := func(content string) func(*testing.T, string) {
				return func(t *testing.T, path string) { write(t, path, content) }
			}
			for _, tc := range []struct {
				name string
				make func(t *testing.T, path string)
				err  string // "": good
			}{
				{"good", file(r.good), ""},
				{"white space after it", file(r.good + " \n"), ""},
				{"link", func(t *testing.T, path string) {
					write(t, path+".real", r.good)
					if err := os.Symlink(path+".real", path); err != nil {
						t.Fatal(err)
					}
				}, ""},
				{"missing", func(*testing.T, string) {}, "no such file"},
				{"empty", file(""), "decode"},
				{"cut", file(r.good[:len(r.good)-1]), "decode"},
				{"trailing data", file(r.good + "{}"), "decode"},
				{"wrong type", file(r.wrong), "decode"},
				{"not an object", file("[]"), "decode"},
				{"largest", file(r.good + strings.Repeat(" ", maxConfig-len(r.good))), ""},
				{"too large", file(r.good + strings.Repeat(" ", maxConfig-len(r.good)+1)), "more than"},
				{"directory", func(t *testing.T, path string) {
					if err := os.Mkdir(path, 0o700); err != nil {
						t.Fatal(err)
					}
				}, "config.json: "},
				{"fifo", func(t *testing.T, path string) {
					if err := unix.Mkfifo(path, 0o600); err != nil {
						t.Fatal(err)
					}
				}, "config.json: "},
			} {
				t.Run(tc.name, func(t *testing.T) {
					t.Parallel()
					dir := t.TempDir()
					path := filepath.Join(dir, "config.json")
					tc.make(t, path)
					var got string
					err := within(t, 10*time.Second, func() (err error) {
						got, err = r.read(dir, path)
						return err
					})
					switch {
					case tc.err == "" && (err != nil || got != "web"):
						t.Errorf("read %q, %v", got, err)
					case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
						t.Errorf("got error %v, expected one with %q", err, tc.err)
					case tc.name == "missing" && !errors.Is(err, fs.ErrNotExist):
						t.Errorf("%v is not fs.ErrNotExist", err)
					}
				})
			}
		})
	}
}

// That somebody has it open for writing, and says nothing, blocks nobody.
func TestReadBundleFIFOWithWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	err = within(t, 10*time.Second, func() error { _, err := readBundle(dir); return err })
	if err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("got %v", err)
	}
}

func TestReadResourcesStdin(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"unified": {"a": "b"}}`:        "",
		`{"unified": {"a": "b"}} x`:      "decode -",
		strings.Repeat(" ", maxConfig+1): "read -: more than",
	} {
		var r specs.LinuxResources
		err := ReadResources("-", strings.NewReader(in), &r)
		if want == "" && (err != nil || r.Unified["a"] != "b") {
			t.Errorf("read %v, %v", r.Unified, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got error %v, expected one with %q", err, want)
		}
	}
	// Fields that are not in it stay.
	r := specs.LinuxResources{Unified: map[string]string{"a": "b"}}
	if err := ReadResources("-", strings.NewReader(`{}`), &r); err != nil || r.Unified["a"] != "b" {
		t.Errorf("{} made it %v, %v", r.Unified, err)
	}
}

func TestWritePIDFile(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		make func(t *testing.T, path string)
		err  bool
	}{
		{"new", func(*testing.T, string) {}, false},
		{"over an old one", func(t *testing.T, path string) { write(t, path, "123456789\n") }, false},
		{"link", func(t *testing.T, path string) {
			write(t, path+".other", "precious")
			if err := os.Symlink(path+".other", path); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"fifo", func(t *testing.T, path string) {
			if err := unix.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "pid")
			tc.make(t, path)
			before, berr := os.Lstat(path)
			// A reader keeps the whole of what was there.
			old, oerr := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
			if oerr == nil {
				defer old.Close()
			}
			err := within(t, 10*time.Second, func() error { return WritePIDFile(path, 4711) })
			if (err != nil) != tc.err {
				t.Fatalf("got %v", err)
			}
			if tc.err {
				if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
					t.Errorf("it was replaced: %v", err)
				}
				if b, err := os.ReadFile(path + ".other"); err == nil && string(b) != "precious" {
					t.Errorf("it was written through: %q", b)
				}
			} else {
				b, err := os.ReadFile(path)
				if err != nil || string(b) != "4711" {
					t.Errorf("its content is %q, %v", b, err)
				}
				if info, err := os.Lstat(path); err != nil || info.Mode() != 0o644 {
					t.Errorf("its mode is %v, %v", info.Mode(), err)
				}
				if berr == nil {
					if b, err := io.ReadAll(old); err != nil || string(b) != "123456789\n" {
						t.Errorf("the old file became %q, %v", b, err)
					}
				}
			}
			left, err := filepath.Glob(filepath.Join(dir, ".*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
	if err := WritePIDFile(filepath.Join(t.TempDir(), "none", "pid"), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// socketPath is one short enough for an address.
func socketPath(t *testing.T) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "s")
	if len(p) > 100 {
		t.Skipf("%s is too long for a socket", p)
	}
	return p
}

func TestOpenTerminal(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	// Not accepted yet: the caller need not wait for it.
	var slave *os.File
	if err := within(t, 5*time.Second, func() (err error) { slave, err = OpenTerminal(path, &specs.Box{Height: 33, Width: 77}); return err }); err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	if size, err := unix.IoctlGetWinsize(int(slave.Fd()), unix.TIOCGWINSZ); err != nil || size.Row != 33 || size.Col != 77 {
		t.Errorf("its size is %+v, %v", size, err)
	}

	ln.SetDeadline(time.Now().Add(2 * time.Minute))
	conn, err := ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	b, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(2*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	if string(b[:n]) != "/dev/ptmx" {
		t.Errorf("the payload is %q", b[:n])
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("%d control messages, %v", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("descriptors %v, %v", fds, err)
	}
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	if m, err := conn.Read(b); m != 0 || err != io.EOF {
		t.Errorf("there is more on the socket: %d bytes, %v", m, err)
	}

	if _, err := master.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := slave.Read(b); err != nil || !bytes.Equal(b[:n], []byte("hello\n")) {
		t.Errorf("the terminal reads %q, %v", b[:n], err)
	}
}

func TestOpenTerminalRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		make func(t *testing.T, path string)
		err  error
	}{
		{"nothing there", func(*testing.T, string) {}, unix.ENOENT},
		{"file", func(t *testing.T, path string) { write(t, path, "") }, unix.ECONNREFUSED},
		{"nobody listens", func(t *testing.T, path string) {
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			ln.SetUnlinkOnClose(false)
			ln.Close()
		}, unix.ECONNREFUSED},
		{"datagrams", func(t *testing.T, path string) {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}, unix.EPROTOTYPE},
		// A listener that never accepts and has no room for one more.
		{"full", func(t *testing.T, path string) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}, unix.EAGAIN},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := socketPath(t)
			tc.make(t, path)
			var slave *os.File
			err := within(t, 2*consoleTimeout, func() (err error) { slave, err = OpenTerminal(path, nil); return err })
			if !errors.Is(err, tc.err) || slave != nil {
				t.Errorf("got %v, %v, expected %v", slave, err, tc.err)
			}
		})
	}
	if _, err := OpenTerminal("", &specs.Box{Height: 1, Width: 1 << 16}); err == nil || !strings.Contains(err.Error(), "process.consoleSize: expected at most 65535") {
		t.Errorf("a size that is none: %v", err)
	}
	if _, err := OpenTerminal("", nil); err == nil || !strings.Contains(err.Error(), "--console-socket is needed") {
		t.Errorf("no socket: %v", err)
	}
}

// script is a hook that runs shell commands.
func script(format string, args ...any) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf(format, args...)}}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
