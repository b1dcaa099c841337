// SPDX-License-Identifier: Apache-2.0

package companion

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/proc/proctest"
	"sandboxctl.dev/launcher/wire"
)

// This test binary is also a sentry and a gofer as far as the handshake goes. It
// answers what the file beside it says: a code, a newline and a text.
func TestMain(m *testing.M) {
	if os.Args[0] != SentryName && os.Args[0] != GoferName && os.Args[0] != ImageName {
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil || len(os.Args) != 2 || os.Args[1] != "version" || len(os.Environ()) != 0 {
		fmt.Fprintln(os.Stderr, "not a handshake:", err, os.Args, os.Environ())
		os.Exit(9)
	}
	says, err := os.ReadFile(strings.TrimSuffix(self, " (deleted)") + ".answer")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(8)
	}
	code, text, _ := strings.Cut(string(says), "\n")
	fmt.Print(text)
	if code == "hangs" {
		time.Sleep(time.Hour)
	}
	n, err := strconv.Atoi(code)
	if err != nil {
		n = 7
	}
	os.Exit(n)
}

// program puts a copy of this test binary at a path, which is a new file each time.
func program(t *testing.T, path string) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = proctest.WriteProgram(path+".new", self, 0o755)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// answer says what the program at a path prints, and the code that it ends with.
func answer(t *testing.T, path, text, code string) {
	t.Helper()
	if err := os.WriteFile(path+".answer", []byte(code+"\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A program that gives no answer is ended, and told as that.
func TestCompanionHangs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p")
	program(t, path)
	answer(t, path, "", "hangs")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("not started after 100ms"))
	defer cancel()
	if _, _, err := (&Program{Name: GoferName, Path: path}).Open(ctx); err == nil || !strings.HasSuffix(err.Error(), "ask it for its version: not started after 100ms") {
		t.Errorf("error %v", err)
	}
}

// A sentry and a gofer are found, opened and checked by the same rules.
func TestCompanions(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p")
	program(t, path)
	for name, protocol := range map[string]int{SentryName: wire.Protocol, GoferName: gofer.Protocol, ImageName: wire.ImageProtocol} {
		other := map[string]string{SentryName: GoferName, GoferName: SentryName, ImageName: GoferName}[name]
		for what, c := range map[string]struct{ text, code, want string }{
			"good":            {wire.Handshake(name, protocol, "v1"), "0", ""},
			"with a newline":  {wire.Handshake(name, protocol, "v1") + "\n", "0", ""},
			"a newer one":     {wire.Handshake(name, protocol+1, "v1"), "0", "install both from the same release"},
			"an older one":    {wire.Handshake(name, protocol-1, "v1"), "0", "install both from the same release"},
			"the other one":   {wire.Handshake(other, protocol, "v1"), "0", "expected a " + name},
			"no version":      {wire.Handshake(name, protocol, ""), "0", "expected a " + name},
			"nothing":         {"", "0", "expected a " + name},
			"another program": {"usage: x", "0", "expected a " + name},
			"an escape":       {"\x1b[2J", "0", "expected a " + name},
			"a failure":       {wire.Handshake(name, protocol, "v1"), "3", "exit status 3"},
		} {
			answer(t, path, c.text, c.code)
			v, err := Check(t.Context(), name, path)
			if c.want == "" && (err != nil || v != "v1") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path)) {
				t.Errorf("%s, %s: %q %v, expected %q", name, what, v, err, c.want)
			}
			if err != nil && strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("%s, %s: an escape sequence: %q", name, what, err)
			}
		}
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/text", []byte("#!/bin/sh\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{dir + "/none": "no such file", dir + "/text": "is it executable", dir: "is it executable"} {
			if _, err := Check(t.Context(), name, path); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s at %s: %v", name, path, err)
			}
		}
		// This test binary has nothing beside it.
		if _, err := Find(name, ""); err == nil || strings.Contains(err.Error(), "with --"+strings.TrimPrefix(name, "sandboxctl-")) != (name != ImageName) {
			t.Errorf("%s: %v", name, err)
		}
		if path, err := Find(name, "x"); err != nil || !filepath.IsAbs(path) {
			t.Errorf("%s: %q %v", name, path, err)
		}
	}
	if err := SameGVisor("v1", "v1"); err != nil {
		t.Error(err)
	}
	if err := SameGVisor("v1", "v2"); err == nil || !strings.Contains(err.Error(), "install both from the same release") {
		t.Errorf("two versions of gVisor: %v", err)
	}
}

// What an upgrade puts in the place of a program is checked anew; what was opened
// before that is the old one.
func TestCompanionReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p")
	upgrade := func(version string, protocol int) {
		t.Helper()
		answer(t, path, wire.Handshake(GoferName, protocol, version), "0")
		program(t, path)
	}
	upgrade("v1", gofer.Protocol)
	c := &Program{Name: GoferName, Path: path}
	old, v, err := c.Open(t.Context())
	if err != nil || v != "v1" {
		t.Fatal(v, err)
	}
	defer old.Close()
	upgrade("v2", gofer.Protocol)
	next, v, err := c.Open(t.Context())
	if err != nil || v != "v2" {
		t.Fatal(v, err)
	}
	defer next.Close()
	var a, b, now unix.Stat_t
	if err := errors.Join(unix.Fstat(int(old.Fd()), &a), unix.Fstat(int(next.Fd()), &b), unix.Stat(path, &now)); err != nil {
		t.Fatal(err)
	}
	if a.Ino == b.Ino || b.Ino != now.Ino {
		t.Errorf("inode %d was opened before the upgrade, %d after it, expected %d", a.Ino, b.Ino, now.Ino)
	}
	upgrade("v3", gofer.Protocol+1)
	if f, _, err := c.Open(t.Context()); err == nil {
		f.Close()
		t.Error("one of another protocol is accepted after an upgrade")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if f, _, err := c.Open(t.Context()); err == nil {
		f.Close()
		t.Error("one that is gone is opened")
	}
}
