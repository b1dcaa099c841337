// SPDX-License-Identifier: Apache-2.0

package trustedfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/desired/desiredtest"
)

func TestOpenTrusted(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "only root may give files to others")
	for name, c := range map[string]struct {
		spoil func(top string) error
		path  string // below top, default d/e/file
		want  string // "" opens it
	}{
		"all of root":              {nil, "", ""},
		"a directory":              {nil, "d/e", ""},
		"detours":                  {nil, "./d//e/../e/./file", ""},
		"a file that others write": {func(top string) error { return os.Chmod(top+"/d/e/file", 0o664) }, "", "/d/e/file can be written by others (mode 0664)"},
		"a file that all write":    {func(top string) error { return os.Chmod(top+"/d/e/file", 0o646) }, "", "/d/e/file can be written by others (mode 0646)"},
		"a file of others":         {func(top string) error { return os.Chown(top+"/d/e/file", desiredtest.Stranger, 0) }, "", "/d/e/file belongs to user 54321"},
		"its directory":            {func(top string) error { return os.Chmod(top+"/d/e", 0o775) }, "", "/d/e can be written by others (mode 0775)"},
		"a directory of others":    {func(top string) error { return os.Chown(top+"/d/e", desiredtest.Stranger, 0) }, "", "/d/e belongs to user 54321"},
		"far above":                {func(top string) error { return os.Chmod(top+"/d", 0o757) }, "", "/d can be written by others (mode 0757)"},
		"far above, of others":     {func(top string) error { return os.Chown(top+"/d", desiredtest.Stranger, 0) }, "", "/d belongs to user 54321"},
		"sticky above":             {func(top string) error { return os.Chmod(top+"/d", 0o777|fs.ModeSticky) }, "", ""},
		"sticky above, of others": {func(top string) error {
			return errors.Join(os.Chmod(top+"/d", 0o777|fs.ModeSticky), os.Chown(top+"/d", desiredtest.Stranger, 0))
		}, "", "/d belongs to user 54321"},
		"sticky itself":             {func(top string) error { return os.Chmod(top+"/d", 0o777|fs.ModeSticky) }, "d", "/d can be written by others (mode 1777)"},
		"sticky itself, with a dot": {func(top string) error { return os.Chmod(top+"/d", 0o777|fs.ModeSticky) }, "d/.", "/d can be written by others (mode 1777)"},
		"a group may read":          {func(top string) error { return os.Chown(top+"/d/e/file", 0, desiredtest.Stranger) }, "", ""},
		"a link":                    {func(top string) error { return os.Symlink("d/e", top+"/link") }, "link/file", ""},
		"an absolute link":          {func(top string) error { return os.Symlink(top+"/d/e/file", top+"/link") }, "link", ""},
		"a link of others": {func(top string) error {
			return errors.Join(os.Symlink("d/e", top+"/link"), os.Lchown(top+"/link", desiredtest.Stranger, 0))
		}, "link/file", "/link is a symbolic link that belongs to user 54321"},
		"a link into what is bad": {func(top string) error {
			return errors.Join(os.Symlink("d/e/file", top+"/link"), os.Chmod(top+"/d", 0o777))
		}, "link", "/d can be written by others (mode 0777)"},
		"a link through what is bad": {func(top string) error {
			return errors.Join(os.Mkdir(top+"/bad", 0o755), os.Chmod(top+"/bad", 0o777), os.Symlink("bad/../d/e/file", top+"/link"))
		}, "link", "/bad can be written by others (mode 0777)"},
		"a loop":          {func(top string) error { return os.Symlink("link", top+"/link") }, "link", "too many levels"},
		"nothing":         {nil, "d/none", "no such file"},
		"a dangling link": {func(top string) error { return os.Symlink("none", top+"/link") }, "link", "a link on the way leads to nothing"},
		"through a file":  {nil, "d/e/file/x", "not a directory"},
		"a fifo":          {func(top string) error { return unix.Mkfifo(top+"/fifo", 0o600) }, "fifo", "expected a regular file or a directory"},
		"a link to a fifo": {func(top string) error {
			return errors.Join(unix.Mkfifo(top+"/fifo", 0o600), os.Symlink("fifo", top+"/l"))
		}, "l", "expected a regular file or a directory"},
	} {
		top := t.TempDir()
		desiredtest.Must(t, os.MkdirAll(top+"/d/e", 0o755))
		desiredtest.Must(t, os.WriteFile(top+"/d/e/file", []byte(name), 0o644))
		if c.spoil != nil {
			desiredtest.Must(t, c.spoil(top))
		}
		if c.path == "" {
			c.path = "d/e/file"
		}
		f, err := Open(top + "/" + c.path)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, expected %q", name, err, c.want)
			}
			var u *UntrustedError
			if said := strings.Contains(c.want, "54321") || strings.Contains(c.want, "others"); errors.As(err, &u) != said {
				t.Errorf("%s: %T", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if fi, err := f.Stat(); err != nil || !fi.IsDir() {
			if b, err := io.ReadAll(f); err != nil || string(b) != name {
				t.Errorf("%s: it holds %q %v", name, b, err)
			}
		}
		f.Close()
	}
	if _, err := Open("relative"); err == nil {
		t.Error("a relative path is accepted")
	}
	if f, err := Open("/"); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}

// A path below a directory stays there.
func TestOpenTrustedBelow(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	desiredtest.Must(t, os.MkdirAll(top+"/m/d", 0o755))
	desiredtest.Must(t, os.WriteFile(top+"/m/d/file", nil, 0o644))
	desiredtest.Must(t, os.WriteFile(top+"/secret", nil, 0o644))
	for l, to := range map[string]string{"in": "d/file", "up": "../secret", "abs": top + "/secret", "round": "d/../d/file", "out": "../m/d/file"} {
		desiredtest.Must(t, os.Symlink(to, top+"/m/"+l))
	}
	dir, err := os.Open(top + "/m")
	desiredtest.Must(t, err)
	defer dir.Close()
	for p, want := range map[string]error{"in": nil, "round": nil, "d/file": nil, "up": unix.EXDEV, "abs": unix.EXDEV, "out": unix.EXDEV, "../secret": unix.EXDEV, "none": unix.ENOENT} {
		f, err := OpenBelow(dir, p)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, expected %v", p, err, want)
		}
		if err == nil {
			f.Close()
		}
	}
	if _, err := dir.Stat(); err != nil {
		t.Errorf("the directory was closed: %v", err)
	}
}
