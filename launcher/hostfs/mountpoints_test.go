// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// What a sandbox mounts on is made in the trees that it writes to, and nowhere else.
func TestMountPointsMade(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "cloning mounts needs root")
	bind := func(dest string) specs.Mount {
		return specs.Mount{Destination: dest, Type: "bind", Options: []string{"rbind"}}
	}
	tmpfs := func(dest string) specs.Mount { return specs.Mount{Destination: dest, Type: "tmpfs"} }
	twoIDs := &idmap.Maps{
		UIDs: []specs.LinuxIDMapping{{HostID: 7000, Size: 10}}, GIDs: []specs.LinuxIDMapping{{HostID: 8000, Size: 10}},
	}
	for name, c := range map[string]struct {
		overlay  string
		readOnly bool // the root
		ids      *idmap.Maps
		mounts   []specs.Mount
		volumes  []string // a directory, a file, or one that is read-only
		prepare  string   // made before, "-> " for a link, "owned " for a directory of 7000
		want     string
		refused  string // what can't be mounted on, and why
	}{
		"a root":                      {want: "root/dev root/proc root/sys root/tmp"},
		"an overlay":                  {overlay: desired.OverlayMemory},
		"a read-only root":            {readOnly: true},
		"a tmpfs":                     {mounts: []specs.Mount{tmpfs("/a/b")}, want: "root/a root/a/b root/dev root/proc root/sys root/tmp"},
		"below the sentry's":          {mounts: []specs.Mount{tmpfs("/dev/shm"), tmpfs("/a"), bind("/a/b")}, volumes: []string{"dir"}, want: "root/a root/dev root/proc root/sys root/tmp"},
		"in a volume":                 {overlay: desired.OverlayMemory, mounts: []specs.Mount{bind("/data"), tmpfs("/data/a/b")}, volumes: []string{"dir"}, want: "dir/a dir/a/b"},
		"in a read-only volume":       {overlay: desired.OverlayMemory, mounts: []specs.Mount{bind("/data"), tmpfs("/data/a/b")}, volumes: []string{"readonly"}},
		"a file":                      {overlay: desired.OverlayMemory, mounts: []specs.Mount{bind("/data/x/config"), bind("/data")}, volumes: []string{"file", "dir"}, want: "dir/x dir/x/config="},
		"/tmp itself":                 {mounts: []specs.Mount{bind("/tmp"), tmpfs("/tmp/x")}, volumes: []string{"dir"}, want: "dir/x root/dev root/proc root/sys root/tmp"},
		"below /tmp":                  {mounts: []specs.Mount{tmpfs("/tmp/x")}, want: "root/dev root/proc root/sys root/tmp root/tmp/x"},
		"a link that leads out of it": {mounts: []specs.Mount{tmpfs("/link/x")}, prepare: "root/link -> ../other", want: "root/dev root/proc root/sys root/tmp"},
		"a link at the end":           {mounts: []specs.Mount{tmpfs("/link")}, prepare: "root/link -> ../other/x", want: "root/dev root/proc root/sys root/tmp"},
		"a file in the way":           {mounts: []specs.Mount{tmpfs("/bin/sh/x")}, prepare: "root/bin", refused: "mount point /bin/sh/x: what is mounted at / has a file on the way to bin/sh/x"},
		"a directory on a file":       {mounts: []specs.Mount{tmpfs("/bin")}, prepare: "root/bin", refused: "mount point /bin: a directory is to be mounted on bin of what is mounted at /, which is a file"},
		"a file on a directory":       {overlay: desired.OverlayMemory, mounts: []specs.Mount{bind("/data"), bind("/data/x")}, volumes: []string{"readonly", "file"}, prepare: "owned readonly/x", refused: "mount point /data/x: a file is to be mounted on x of what is mounted at /data, which is a directory"},
		"a file, read-only":           {overlay: desired.OverlayMemory, mounts: []specs.Mount{bind("/data"), bind("/data/y/x")}, volumes: []string{"readonly", "file"}, refused: "mount point /data/y/x: what is mounted at /data is read-only and has no file y/x"},
		"a file, read-only root":      {readOnly: true, mounts: []specs.Mount{bind("/etc/x")}, volumes: []string{"file"}, refused: "mount point /etc/x: what is mounted at / is read-only and has no file etc/x"},
		"a file that is there":        {overlay: desired.OverlayMemory, mounts: []specs.Mount{bind("/data"), bind("/data/x")}, volumes: []string{"readonly", "file"}, prepare: "readonly/x"},
		"a file that is a link":       {overlay: desired.OverlayMemory, mounts: []specs.Mount{bind("/data"), bind("/data/x")}, volumes: []string{"readonly", "file"}, prepare: "readonly/x -> y"},
		"a file in a tmpfs":           {overlay: desired.OverlayMemory, mounts: []specs.Mount{bind("/data"), tmpfs("/data/t"), bind("/data/t/x")}, volumes: []string{"readonly", "file"}},
		"a file, two levels":          {overlay: desired.OverlayMemory, mounts: []specs.Mount{bind("/data"), bind("/data/in"), bind("/data/in/x")}, volumes: []string{"readonly", "dir", "file"}, want: "dir/x="},
		"below one file":              {overlay: desired.OverlayMemory, mounts: []specs.Mount{bind("/data"), tmpfs("/data/x")}, volumes: []string{"file"}, refused: "mount point /data/x: one file is mounted at /data, and nothing can be mounted below it"},
		"a file, ids without rights":  {overlay: desired.OverlayMemory, ids: twoIDs, mounts: []specs.Mount{bind("/data"), bind("/data/x")}, volumes: []string{"dir", "file"}}, // its group may have the right
		"ids without rights":          {ids: twoIDs},
		"ids with rights":             {overlay: desired.OverlayMemory, ids: twoIDs, mounts: []specs.Mount{bind("/data"), tmpfs("/data/sub/a")}, volumes: []string{"dir"}, prepare: "owned dir/sub", want: "dir/sub/a:7000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			work, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			at := func(p string) string { return filepath.Join(work, p) }
			for _, d := range []string{"root", "dir", "readonly", "other"} {
				err = errors.Join(err, os.Mkdir(at(d), 0o755))
			}
			err = errors.Join(err, os.WriteFile(at("file"), []byte("x"), 0o600))
			if link, target, ok := strings.Cut(c.prepare, " -> "); ok {
				err = errors.Join(err, os.Symlink(target, at(link)))
			} else if dir, ok := strings.CutPrefix(c.prepare, "owned "); ok {
				err = errors.Join(err, os.Mkdir(at(dir), 0o755), os.Chown(at(dir), 7000, 8000))
			} else if c.prepare != "" {
				err = errors.Join(err, os.WriteFile(at(c.prepare), nil, 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			before := filesBelow(t, work)
			st := &setup.Setup{Maps: c.ids, Containers: []setup.Container{{
				Spec: &specs.Spec{Mounts: c.mounts}, Root: setup.Source{Path: at("root"), ReadOnly: c.readOnly}, Overlay: c.overlay,
			}}}
			if c.overlay == "" {
				st.App().Overlay = desired.OverlayNone
			}
			for _, v := range c.volumes {
				st.App().Volumes = append(st.App().Volumes, setup.Source{Path: at(v), ReadOnly: v == "readonly"})
			}
			var toGofer, toSentry proc.Donation
			defer func() { _ = errors.Join(toGofer.Close(), toSentry.Close()) }()
			files, err := OpenSources(st.Sources(), nil, &toGofer, &toSentry)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time everything is there
				err := files.MakeMountPoints(st)
				if c.refused == "" && err == nil {
					continue
				}
				if c.refused == "" || err == nil || !strings.HasPrefix(err.Error(), c.refused) || !operation.PreconditionFailed(err) {
					t.Errorf("%v, expected %q", err, c.refused)
				}
			}
			made := slices.DeleteFunc(filesBelow(t, work), func(p string) bool { return slices.Contains(before, p) })
			if got := strings.Join(made, " "); got != c.want {
				t.Errorf("made %q, expected %q", got, c.want)
			}
		})
	}
}

// What can't be mounted in a volume in memory is told: it has the files that it has.
func TestMountPointsInMemory(t *testing.T) {
	t.Parallel()
	file := setup.Source{InMemory: "file", SubPath: "f", Files: []setup.MemoryFile{{Name: "f"}}, ReadOnly: true}
	dir := setup.Source{InMemory: "dir", Files: []setup.MemoryFile{{Name: "f"}}, ReadOnly: true}
	for name, c := range map[string]struct {
		sub, at string
		src     setup.Source
		want    string
	}{
		"a file on a file":         {"", "app.conf", file, ""},
		"a file on nothing":        {"", "x/y", file, "what is mounted at /etc/app is read-only and has no file x/y"},
		"a file on a directory":    {"", "conf.d", file, "a file is to be mounted on conf.d of what is mounted at /etc/app, which is a directory"},
		"a directory on nothing":   {"", "x/y", dir, ""},
		"a directory on a file":    {"", "app.conf", dir, "a directory is to be mounted on app.conf of what is mounted at /etc/app, which is a file"},
		"below a file":             {"", "app.conf/x", dir, "what is mounted at /etc/app has a file on the way to app.conf/x"},
		"in a part of it":          {"conf.d", "a.conf", file, ""},
		"not in a part of it":      {"conf.d", "app.conf", file, "has no file app.conf"},
		"below one file of it":     {"app.conf", "x", dir, "one file is mounted at /etc/app, and nothing can be mounted below it"},
		"an empty directory on it": {"", "conf.d", dir, ""},
	} {
		st := &setup.Setup{Containers: []setup.Container{{Overlay: desired.OverlayMemory, Spec: &specs.Spec{}, Root: setup.Source{Empty: true}}}}
		st.AddBind("/etc/app", setup.Source{InMemory: "app", SubPath: c.sub, Files: []setup.MemoryFile{{Name: "app.conf"}, {Name: "conf.d/a.conf"}}, ReadOnly: true})
		st.AddBind("/etc/app/"+c.at, c.src)
		var toGofer, toSentry proc.Donation
		files, err := OpenSources(st.Sources(), nil, &toGofer, &toSentry)
		if err != nil {
			t.Fatal(err)
		}
		err = files.MakeMountPoints(st)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !operation.PreconditionFailed(err)) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
		toGofer.Close()
		toSentry.Close()
	}
}

// A volume that may be written is read-only all the same if its filesystem is.
func TestMountPointOfReadOnlyFilesystem(t *testing.T) {
	t.Parallel()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	on := &tree{mount: dir, isDir: true}
	if err := on.takes("x", "/data", false, fmt.Errorf("make: %w", unix.EROFS)); err == nil || !operation.PreconditionFailed(err) || !strings.Contains(err.Error(), "what is mounted at /data is read-only and has no file x") {
		t.Errorf("a file: %v", err)
	}
	if err := errors.Join(on.takes("x", "/data", true, unix.EROFS), on.takes("x", "/data", false, unix.ENOSPC), on.takes("x", "/data", false, nil)); err != nil {
		t.Errorf("what the sentry finds out: %v", err)
	}
}

// filesBelow lists what is in a directory: files end with =, an owner other than
// root is added.
func filesBelow(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := os.Stat(p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a link
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(p, dir+"/")
		if info.Mode().IsRegular() {
			name += "="
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
			name += fmt.Sprint(":", uid)
		}
		if want := map[bool]fs.FileMode{true: 0o755, false: 0o644}[info.IsDir()]; info.Mode().Perm() != want {
			name += fmt.Sprintf(" (mode %o)", info.Mode().Perm())
		}
		out = append(out, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
