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

	"sandboxctl.dev/actual/hosttest"
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
		"a file in the way":           {mounts: []specs.Mount{tmpfs("/bin/sh/x")}, prepare: "root/bin", want: "root/dev root/proc root/sys root/tmp"},
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
				files.MakeMountPoints(st)
			}
			made := slices.DeleteFunc(filesBelow(t, work), func(p string) bool { return slices.Contains(before, p) })
			if got := strings.Join(made, " "); got != c.want {
				t.Errorf("made %q, expected %q", got, c.want)
			}
		})
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
