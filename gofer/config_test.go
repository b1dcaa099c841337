// SPDX-License-Identifier: Apache-2.0

package gofer

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCanRun(t *testing.T) {
	t.Parallel()
	err := CanRun()
	if (err != nil) != withCgo {
		t.Errorf("cgo %v: %v", withCgo, err)
	}
	if err != nil && !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("it does not say what to do: %v", err)
	}
}

func TestArgv(t *testing.T) {
	t.Parallel()
	if got := Argv(7, "web", "/state"); len(got) != Args || got[0] != Argv0 || got[1] != "7" || got[2] != "web" || got[3] != "/state" {
		t.Errorf("%q", got)
	}
}

// sample is a configuration with every field set.
func sample() *Config {
	return &Config{
		GateFD: 3, SentryFD: 4, LeftFD: 5, Left: `{"left":true}`, DirectFS: true,
		Mounts: []Mount{
			{SocketFD: 6, FD: -1, ReadOnly: true, Tree: &Tree{
				Dirs:   []Dir{{"etc", 0o755}, {"etc/ssl", 0o700}, {"etc", 0o755}, {"tmp", 0o1777}},
				Files:  []File{{Path: "etc/passwd", Mode: 0o644, Content: "root:x:0:0::/:/bin/sh\n"}, {Path: "etc/key", Mode: 0o400, Data: []byte{0xff, 0}}},
				Owners: []Owner{{"etc/ssl", 5, 6}, {"etc/key", 7, 8}},
				Links:  []Link{{"bin", "usr/bin"}, {"etc/up", "../../.."}},
				Binds:  []Bind{{"usr", 7, true}, {"etc/ssl/certs", 8, true}, {"etc/localtime", 9, false}},
			}},
			{SocketFD: 10, FD: 11, IsDir: true},
			{SocketFD: 12, FD: 13},
			{SocketFD: 17, FD: -1, Empty: true, ReadOnly: true},
			{SocketFD: 18, FD: -1, At: "d/f", Tree: &Tree{Dirs: []Dir{{"d", 0o755}}, Files: []File{{Path: "d/f", Mode: 0o400, Data: []byte("x")}}}},
		},
		Logs: Logs{DirFD: 14, AppName: "1.log", StdoutFD: 15, StderrFD: -1, SentryName: "1.sentry.log", SentryFD: 16, MaxBytes: 1 << 20},
	}
}

func encode(t *testing.T, c *Config) string {
	t.Helper()
	var b bytes.Buffer
	must(t, c.Encode(&b))
	return b.String()
}

// Not in parallel: it looks at a number that must not be another test's.
func TestConfig(t *testing.T) {
	want := sample()
	p := filepath.Join(t.TempDir(), "config")
	must(t, os.WriteFile(p, []byte(encode(t, want)), 0o600))
	f, err := os.Open(p)
	must(t, err)
	// A copy, for somebody who closes it by number.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	must(t, f.Close())
	got, err := ReadConfig(fd)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v, expected %+v", got, err, want)
	}
	// Nobody who takes this process over later finds it.
	if _, err := ReadConfig(fd); err == nil {
		t.Error("the descriptor is still open")
	}
	for _, fd := range []int{-1, 1 << 20} {
		if _, err := ReadConfig(fd); err == nil {
			t.Errorf("descriptor %d is read", fd)
		}
	}
	if err := want.Encode(full{}); err == nil {
		t.Error("it is written nowhere, and no error")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, os.ErrClosed }

// What the launcher would never write is refused before anything is done.
func TestBadConfig(t *testing.T) {
	t.Parallel()
	good := encode(t, sample())
	for name, text := range map[string]string{
		"nothing":       "",
		"null":          "null",
		"empty":         "{}",
		"list":          "[]",
		"no mounts":     `{"mounts":[]}`,
		"cut":           good[:len(good)/2],
		"more":          good + good,
		"junk after":    good + "x",
		"no JSON":       "\x7fELF",
		"unknown field": strings.Replace(good, `"gateFD"`, `"gateFD2":1,"gateFD"`, 1),
		"unknown below": strings.Replace(good, `"isDir"`, `"isDirectory":true,"isDir"`, 1),
		"wrong type":    strings.Replace(good, `"gateFD":3`, `"gateFD":"3"`, 1),
		"too large":     strings.Replace(good, `"gateFD":3`, `"gateFD":36893488147419103232`, 1),
		"fraction":      strings.Replace(good, `"gateFD":3`, `"gateFD":3.5`, 1),
		"negative mode": strings.Replace(good, `"mode":493`, `"mode":-1`, 1),
		"neither":       `{"mounts":[{"socketFD":3,"fd":-1}]}`,
		"both":          `{"mounts":[{"socketFD":3,"fd":4,"tree":{}}]}`,
		"all":           `{"mounts":[{"socketFD":3,"fd":4,"tree":{},"empty":true}]}`,
		"at nothing":    `{"mounts":[{"socketFD":3,"fd":-1,"tree":{"files":[{"path":"f"}]},"at":"g"}]}`,
		"at a link":     `{"mounts":[{"socketFD":3,"fd":-1,"tree":{"links":[{"path":"f","target":"/"}]},"at":"f"}]}`,
		"at a bind":     `{"mounts":[{"socketFD":3,"fd":-1,"tree":{"binds":[{"path":"f","fd":4}]},"at":"f"}]}`,
		"at above":      `{"mounts":[{"socketFD":3,"fd":-1,"tree":{"files":[{"path":"f"}]},"at":".."}]}`,
		"at of a mount": `{"mounts":[{"socketFD":3,"fd":4,"at":"f"}]}`,
		"owner of none": `{"mounts":[{"socketFD":3,"fd":-1,"tree":{"owners":[{"path":"f","uid":1}]}}]}`,
		"owner of link": `{"mounts":[{"socketFD":3,"fd":-1,"tree":{"links":[{"path":"f","target":"/"}],"owners":[{"path":"f","uid":1}]}}]}`,
		"empty and fd":  `{"mounts":[{"socketFD":3,"fd":4,"empty":true}]}`,
	} {
		if c, err := decodeConfig(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "gofer configuration") {
			t.Errorf("%s: %+v %v", name, c, err)
		}
	}
	if _, err := decodeConfig(strings.NewReader(good)); err != nil {
		t.Error(err)
	}
}

// A tree is built while the host's root is still this process's: nothing in it
// may be named so that it is somewhere else.
func TestBadTree(t *testing.T) {
	t.Parallel()
	for _, p := range []string{
		"", ".", "..", "/", "/etc", "/etc/passwd", "../x", "a/../../x", "a/..", "a/.", "./a", "a//b", "a/", "nosuch/x", "a/nosuch/x",
		"link/x", "file/x", "bind/x", "a\x00b", "link", "file", "usr/bin/x",
	} {
		for kind, put := range map[string]func(*Tree){
			"dir":  func(t *Tree) { t.Dirs = append(t.Dirs, Dir{p, 0o755}) },
			"file": func(t *Tree) { t.Files = append(t.Files, File{Path: p, Mode: 0o644, Content: ""}) },
			"link": func(t *Tree) { t.Links = append(t.Links, Link{p, "x"}) },
			"bind": func(t *Tree) { t.Binds = append(t.Binds, Bind{p, 5, true}) },
		} {
			c := &Config{Mounts: []Mount{{SocketFD: 3, FD: -1, Tree: &Tree{
				Dirs:  []Dir{{"a", 0o755}},
				Files: []File{{Path: "file", Mode: 0o644}},
				Links: []Link{{"link", "/"}},
				Binds: []Bind{{"bind", 4, true}},
			}}}}
			if _, err := decodeConfig(strings.NewReader(encode(t, c))); err != nil {
				t.Fatal(err)
			}
			put(c.Mounts[0].Tree)
			if _, err := decodeConfig(strings.NewReader(encode(t, c))); err == nil {
				t.Errorf("%s %q is built", kind, p)
			}
		}
	}
	// A directory that is there may be named again, and mounted over.
	c := &Config{Mounts: []Mount{{SocketFD: 3, FD: -1, Tree: &Tree{
		Dirs: []Dir{{"a", 0o755}, {"a", 0o755}, {"a/..b", 0o755}}, Binds: []Bind{{"a/..b", 4, true}}, Links: []Link{{"a/l", "/anywhere"}},
	}}}}
	if _, err := decodeConfig(strings.NewReader(encode(t, c))); err != nil {
		t.Error(err)
	}
}

// Whatever the bytes are: an error, or a configuration that can be acted on.
func FuzzConfig(f *testing.F) {
	var b bytes.Buffer
	if err := sample().Encode(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"mounts":[{"fd":-1,"tree":{"dirs":[{"path":"a/../b"}],"links":[{"path":"a","target":"/"}]}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeConfig(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(c.Mounts) == 0 {
			t.Fatal("no mounts")
		}
		for _, m := range c.Mounts {
			if m.Empty && (m.FD >= 0 || m.Tree != nil) || !m.Empty && (m.FD >= 0) == (m.Tree != nil) {
				t.Fatalf("%+v", m)
			}
			if m.Tree == nil {
				continue
			}
			var ps []string
			for _, d := range m.Tree.Dirs {
				ps = append(ps, d.Path)
			}
			for _, l := range m.Tree.Links {
				if slices.Contains(ps, filepath.Join(l.Path, ".")) {
					t.Fatalf("%q is a directory and a link", l.Path)
				}
				ps = append(ps, l.Path)
			}
			for _, x := range m.Tree.Files {
				ps = append(ps, x.Path)
			}
			for _, x := range m.Tree.Binds {
				ps = append(ps, x.Path)
			}
			for _, p := range ps {
				if !filepath.IsLocal(p) || filepath.Clean(p) != p {
					t.Fatalf("%q leads out", p)
				}
			}
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		c2, err := decodeConfig(bytes.NewReader(again))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := json.Marshal(c2); err != nil || !bytes.Equal(back, again) {
			t.Fatalf("%s comes back as %s: %v", again, back, err)
		}
	})
}

// shape lists the fields of a type as JSON has them, and their kinds.
func shape(typ reflect.Type) string {
	switch typ.Kind() {
	case reflect.Pointer:
		return shape(typ.Elem())
	case reflect.Slice:
		return "[" + shape(typ.Elem()) + "]"
	case reflect.Struct:
		var fields []string
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields = append(fields, name+" "+shape(f.Type))
		}
		return "{" + strings.Join(fields, ", ") + "}"
	default:
		return typ.Kind().String()
	}
}

// The launcher and the gofer may come from different builds: a configuration that
// has changed without its version would be refused, or acted on wrongly, when a
// sandbox starts. Whoever changes it gives it a new version, and writes both here.
func TestProtocol(t *testing.T) {
	t.Parallel()
	const mount = "{socketFD int, fd int, isDir bool, tree {dirs [{path string, mode uint32}], owners [{path string, uid uint32, gid uint32}], " +
		"files [{path string, mode uint32, content string, data [uint8]}], links [{path string, target string}], binds [{path string, fd int, isDir bool}]}, at string, " +
		"empty bool, secret bool, noDevices bool, volume string, readOnly bool}"
	const logs = "{dirFD int, appName string, stdoutFD int, stderrFD int, sentryName string, sentryFD int, maxBytes int64, leastFree uint64}"
	// 4 is what 3 was: its program can wait for a configuration.
	versions := map[int]string{
		4: "{gateFD int, sentryFD int, leftFD int, left string, mounts [" + mount + "], directFS bool, logs " + logs +
			", neverShared [{device string, path string, name string, writes bool, state bool}], overlays [string]}",
	}
	if got := shape(reflect.TypeFor[Config]()); got != versions[Protocol] {
		t.Errorf("the configuration of protocol %d is\n%s\nexpected\n%s", Protocol, got, versions[Protocol])
	}
}
