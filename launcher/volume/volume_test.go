// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/setup"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// state is a state directory, and the path of its volumes.
func state(t *testing.T) (*os.File, string) {
	t.Helper()
	return stateIn(t, t.TempDir()+"/s")
}

// stateIn is state, at a place.
func stateIn(t *testing.T, at string) (*os.File, string) {
	t.Helper()
	s, err := actual.OpenStore(at)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s.RootDir(), filepath.Join(s.Path(), Directory)
}

// with is a set-up with volumes.
func with(sources ...setup.Source) *setup.Setup {
	return &setup.Setup{Containers: []setup.Container{{Volumes: sources}}}
}

// start opens volumes as a start does.
func start(t *testing.T, state *os.File, st *setup.Setup) (*Opened, error) {
	t.Helper()
	o, err := OpenAll(t.Context(), state, st, "web")
	if err == nil {
		t.Cleanup(o.Close)
	}
	return o, err
}

func put(t *testing.T, dir interface{ Fd() uintptr }, name, text string) {
	t.Helper()
	must(t, os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name), []byte(text), 0o644))
}

// A volume is made once, shared by those who name it, and kept.
func TestOpenAll(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	st := with(setup.Source{Volume: "data"}, setup.Source{Path: "/elsewhere"}, setup.Source{Volume: "data", SubPath: "a/b"}, setup.Source{Volume: "other"})
	o, err := start(t, dir, st)
	must(t, err)
	put(t, st.App().Volumes[0].Dir, "file", "x")
	put(t, st.App().Volumes[2].Dir, "below", "y")
	if st.App().Volumes[1].Dir != nil {
		t.Error("a path of the host was opened as a volume")
	}
	o.Close()
	for name, want := range map[string]string{"data/data/file": "x", "data/data/a/b/below": "y"} {
		if b, err := os.ReadFile(filepath.Join(path, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	s, err := Look(dir)
	must(t, err)
	defer s.Close()
	before, err := s.List()
	must(t, err)
	again := with(setup.Source{Volume: "data", ReadOnly: true})
	_, err = start(t, dir, again)
	must(t, err)
	after, err := s.List()
	must(t, err)
	if len(before) != 2 || before[0].Name != "data" || before[0].CreatedFor != "web" || before[0].Problem != "" || !slices.Equal(before, after) {
		t.Errorf("%+v became %+v", before, after)
	}
}

// The mode is no matter of this program's umask, and a new volume belongs to root of the
// sandbox. What is there already belongs to whom it belongs.
func TestFreshOwner(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	ids := &idmap.Maps{
		UIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 70000, Size: 1000}}, GIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 80000, Size: 1000}},
	}
	owner := func(name string) [3]uint32 {
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(path, name), &st))
		return [3]uint32{st.Uid, st.Gid, st.Mode & 0o7777}
	}
	st := with(setup.Source{Volume: "data", SubPath: "sub"})
	st.Maps = ids
	_, err := start(t, dir, st)
	must(t, err)
	for name, want := range map[string][3]uint32{"data/data": {70000, 80000, 0o755}, "data/data/sub": {70000, 80000, 0o755}, "data": {0, 0, 0o700}} {
		if got := owner(name); got != want {
			t.Errorf("%s: %v, expected %v", name, got, want)
		}
	}
	_, err = start(t, dir, with(setup.Source{Volume: "data"}))
	must(t, err)
	if got := owner("data/data"); got[0] != 70000 {
		t.Errorf("a second sandbox made it its own: %v", got)
	}
	// One that somebody has brought here is completed, and left as it is.
	must(t, os.MkdirAll(filepath.Join(path, "mine/data"), 0o700))
	must(t, os.WriteFile(filepath.Join(path, "mine/data/x"), nil, 0o600))
	st = with(setup.Source{Volume: "mine"})
	st.Maps = ids
	_, err = start(t, dir, st)
	must(t, err)
	if got := owner("mine/data"); got != [3]uint32{0, 0, 0o700} {
		t.Errorf("what was there was changed: %v", got)
	}
}

// Whatever is put in the place of what leads to a volume is refused: nothing is followed out
// of the state directory, and nothing is shared that others could have changed.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(path, outside string) error
		src  setup.Source
		want string
	}{
		"a name that leads up":    {nil, setup.Source{Volume: ".."}, "is not the name of a volume"},
		"the directory itself":    {nil, setup.Source{Volume: "."}, "is not the name of a volume"},
		"no name that is a path":  {nil, setup.Source{Volume: "a/b"}, "is not the name of a volume"},
		"an absolute path":        {nil, setup.Source{Volume: "/etc"}, "is not the name of a volume"},
		"a hidden name":           {nil, setup.Source{Volume: ".x"}, "is not the name of a volume"},
		"a link for a volume":     {func(p, o string) error { return os.Symlink(o, p+"/v") }, setup.Source{Volume: "v"}, "symbolic link"},
		"a link to a volume":      {func(p, _ string) error { return errors.Join(os.Mkdir(p+"/w", 0o700), os.Symlink("w", p+"/v")) }, setup.Source{Volume: "v"}, "symbolic link"},
		"a link for the data":     {func(p, o string) error { return errors.Join(os.Mkdir(p+"/v", 0o700), os.Symlink(o, p+"/v/data")) }, setup.Source{Volume: "v"}, "symbolic link"},
		"a link for the data, up": {func(p, _ string) error { return errors.Join(os.Mkdir(p+"/v", 0o700), os.Symlink("../..", p+"/v/data")) }, setup.Source{Volume: "v"}, "symbolic link"},
		"a file for the data": {func(p, _ string) error {
			return errors.Join(os.Mkdir(p+"/v", 0o700), os.WriteFile(p+"/v/data", nil, 0o600))
		}, setup.Source{Volume: "v"}, "not a directory"},
		"a file for a volume":             {func(p, _ string) error { return os.WriteFile(p+"/v", nil, 0o600) }, setup.Source{Volume: "v"}, "not a directory"},
		"a volume of somebody else's":     {func(p, _ string) error { return errors.Join(os.Mkdir(p+"/v", 0o700), os.Chown(p+"/v", 1000, 1000)) }, setup.Source{Volume: "v"}, "belongs to user 1000"},
		"a volume that others may change": {func(p, _ string) error { return errors.Join(os.Mkdir(p+"/v", 0o700), os.Chmod(p+"/v", 0o770)) }, setup.Source{Volume: "v"}, "others may write it"},
		"a link for all volumes":          {func(p, o string) error { return errors.Join(os.Remove(p), os.Symlink(o, p)) }, setup.Source{Volume: "v"}, "symbolic link"},
		"a link for what is known of it": {func(p, o string) error {
			return errors.Join(os.MkdirAll(p+"/v/data", 0o700), os.Symlink(o+"/meta", p+"/v/meta.json"))
		}, setup.Source{Volume: "v"}, "too many levels"},
		"what is known of another volume": {func(p, _ string) error {
			return errors.Join(os.MkdirAll(p+"/v/data", 0o700), os.WriteFile(p+"/v/meta.json", []byte(`{"version":1,"name":"w"}`), 0o600))
		}, setup.Source{Volume: "v"}, `it is about the volume "w"`},
		"a later version": {func(p, _ string) error {
			return errors.Join(os.MkdirAll(p+"/v/data", 0o700), os.WriteFile(p+"/v/meta.json", []byte(`{"version":2,"name":"v"}`), 0o600))
		}, setup.Source{Volume: "v"}, "it has version 2"},
		"a damaged file": {func(p, _ string) error {
			return errors.Join(os.MkdirAll(p+"/v/data", 0o700), os.WriteFile(p+"/v/meta.json", []byte(`{"ver`), 0o600))
		}, setup.Source{Volume: "v"}, "read meta.json"},
		"a link in a sub path": {func(p, o string) error {
			return errors.Join(os.MkdirAll(p+"/v/data/a", 0o700), os.Symlink(o, p+"/v/data/a/b"))
		}, setup.Source{Volume: "v", SubPath: "a/b"}, "symbolic link"},
		"a link inside, first": {func(p, _ string) error {
			return errors.Join(os.MkdirAll(p+"/v/data/real/b", 0o700), os.Symlink("real", p+"/v/data/a"))
		}, setup.Source{Volume: "v", SubPath: "a/b"}, "symbolic link"},
		"a sub path that leads up": {func(p, _ string) error { return os.MkdirAll(p+"/v/data", 0o700) }, setup.Source{Volume: "v", SubPath: "../.."}, "invalid cross-device link"},
		"a file in a sub path": {func(p, _ string) error {
			return errors.Join(os.MkdirAll(p+"/v/data", 0o700), os.WriteFile(p+"/v/data/a", nil, 0o600))
		}, setup.Source{Volume: "v", SubPath: "a/b"}, "not a directory"},
		"a sub path of a file": {func(p, _ string) error {
			return errors.Join(os.MkdirAll(p+"/v/data", 0o700), os.WriteFile(p+"/v/data/a", nil, 0o600))
		}, setup.Source{Volume: "v", SubPath: "a"}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, path := state(t)
			outside := t.TempDir()
			must(t, os.WriteFile(outside+"/meta", []byte(`{"version":1,"name":"v"}`), 0o600))
			must(t, os.Mkdir(path, 0o700))
			if c.do != nil {
				must(t, c.do(path, outside))
			}
			st := with(c.src)
			_, err := start(t, dir, st)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, expected %q", err, c.want)
			}
			if !operation.PreconditionFailed(err) && !strings.Contains(c.want, "name of a volume") {
				t.Errorf("it is not tried again when somebody has mended it: %v", err)
			}
			if names, err := os.ReadDir(outside); err != nil || len(names) != 1 {
				t.Errorf("something was made outside: %v %v", names, err)
			}
		})
	}
}

// Something that is mounted in the state directory is no part of it.
func TestOpenRefusesMounts(t *testing.T) {
	dir, path := state(t)
	for _, at := range []string{"v", "v/data", "v/data/sub"} {
		must(t, os.MkdirAll(filepath.Join(path, "v/data/sub"), 0o700))
		must(t, unix.Mount(t.TempDir(), filepath.Join(path, at), "", unix.MS_BIND, ""))
		_, err := start(t, dir, with(setup.Source{Volume: "v", SubPath: "sub"}))
		must(t, unix.Unmount(filepath.Join(path, at), unix.MNT_DETACH))
		if err == nil || !strings.Contains(err.Error(), "something is mounted there") {
			t.Errorf("a mount at %s: %v", at, err)
		}
	}
}

// A program may be killed at any step of making a volume. The next one completes it, and
// what nobody wants any more is swept: but nothing that holds a file.
func TestIncomplete(t *testing.T) {
	t.Parallel()
	temp := atomicfile.TempPrefix + "0011"
	for name, c := range map[string]struct {
		make  []string // directories, and files after a colon
		swept bool
	}{
		"nothing in it":       {[]string{"v"}, true},
		"no meta":             {[]string{"v/data"}, true},
		"half of a meta":      {[]string{"v/data", ":v/" + temp}, true},
		"somebody's data":     {[]string{"v/data", ":v/data/x"}, false},
		"somebody's and ours": {[]string{"v/data/d", ":v/" + temp}, false},
		"files beside":        {[]string{"v", ":v/mine"}, false},
		"data put aside":      {[]string{"v/aside", ":v/aside/x", ":v/progress.json"}, false},
	} {
		for _, sweep := range []bool{false, true} {
			dir, path := state(t)
			trash := filepath.Join(filepath.Dir(path), actual.TrashDir)
			for _, p := range c.make {
				if f, ok := strings.CutPrefix(p, ":"); ok {
					must(t, os.WriteFile(filepath.Join(path, f), nil, 0o600))
				} else {
					must(t, os.MkdirAll(filepath.Join(path, p), 0o700))
				}
			}
			if sweep {
				must(t, Sweep(t.Context(), dir))
				// There may be millions of files: the first pass must not wait for them.
				if names, err := os.ReadDir(trash); err != nil || (len(names) > 0) != c.swept {
					t.Errorf("%s: in the trash: %v %v", name, names, err)
				}
				if _, err := os.Stat(path + "/v"); (err != nil) != c.swept {
					t.Errorf("%s: swept: %v, expected %v", name, err != nil, c.swept)
				}
			}
			st := with(setup.Source{Volume: "v"})
			_, err := start(t, dir, st)
			must(t, err)
			if _, err := os.Stat(path + "/v/" + temp); err == nil {
				t.Errorf("%s: a temporary file is left", name)
			}
			s, err := Look(dir)
			must(t, err)
			if l, err := s.List(); err != nil || len(l) != 1 || l[0].Problem != "" {
				t.Errorf("%s: %+v %v", name, l, err)
			}
			s.Close()
			if names, _ := os.ReadDir(trash); !sweep && len(names) > 0 {
				t.Errorf("%s: left in the trash: %v", name, names)
			}
		}
	}
}

// Many sandboxes start with one volume that nobody has made: all get the same one.
func TestOpenTogether(t *testing.T) {
	t.Parallel()
	dir, _ := state(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	inodes := map[uint64]bool{}
	for range 16 {
		wg.Go(func() {
			st := with(setup.Source{Volume: "v"})
			o, err := OpenAll(t.Context(), dir, st, "web")
			if err != nil {
				t.Error(err)
				return
			}
			defer o.Close()
			var s unix.Stat_t
			if err := unix.Fstat(int(st.App().Volumes[0].Dir.Fd()), &s); err != nil {
				t.Error(err)
			}
			mu.Lock()
			inodes[s.Ino] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(inodes) != 1 {
		t.Errorf("%d volumes of one name", len(inodes))
	}
}

// A volume is not removed from under a sandbox that is being started, and a name that was
// removed is another volume when it comes back.
func TestRemove(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	o, err := start(t, dir, with(setup.Source{Volume: "v"}))
	must(t, err)
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	fine := func() error { return nil }
	if err := s.Remove(t.Context(), "v", fine); !errors.Is(err, ErrBusy) {
		t.Errorf("removed during a start: %v", err)
	}
	o.Close()
	used := errors.New("in use")
	if err := s.Remove(t.Context(), "v", func() error { return used }); !errors.Is(err, used) {
		t.Errorf("removed although it is used: %v", err)
	}
	before, err := s.Look("v")
	must(t, err)
	// Deep, wide, and with what is hard to remove.
	deep := path + "/v/data"
	for range 300 {
		deep += "/d"
	}
	must(t, os.MkdirAll(deep, 0o700))
	for i := range removeAtOnce + 10 {
		must(t, os.WriteFile(fmt.Sprintf("%s/v/data/%d", path, i), nil, 0o600))
	}
	must(t, s.Remove(t.Context(), "v", fine))
	if err := s.Remove(t.Context(), "v", fine); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if trash, err := os.ReadDir(filepath.Join(filepath.Dir(path), actual.TrashDir)); err != nil || len(trash) > 0 {
		t.Errorf("left in the trash: %v %v", trash, err)
	}
	o, err = start(t, dir, with(setup.Source{Volume: "v"}))
	must(t, err)
	o.Close()
	after, err := s.Look("v")
	must(t, err)
	if after.ID == before.ID {
		t.Error("it came back")
	}
	// Who ends meanwhile has removed it all the same: its files go with the trash.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, s.Remove(ended, "v", fine))
	if _, err := s.Look("v"); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
}
