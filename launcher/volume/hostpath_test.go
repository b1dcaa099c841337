// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/setup"
)

// shared is a host with a directory that manifests may share.
type shared struct {
	t *testing.T
	// top holds the state directory and the directory that is shared.
	top, dir string
	host     *hostfs.Host
	policy   *hostpolicy.Policy
	sandbox  *os.File
}

func newShared(t *testing.T) *shared {
	t.Helper()
	s := &shared{t: t, top: t.TempDir()}
	s.dir = filepath.Join(s.top, "shared")
	state, err := actual.OpenStore(s.top + "/state")
	must(t, err)
	t.Cleanup(func() { state.Close() })
	must(t, os.MkdirAll(s.dir+"/tree/d", 0o755))
	s.host = &hostfs.Host{State: state.RootDir(), StatePath: state.Path()}
	s.policy = hostpolicy.Default()
	s.policy.HostPaths = []hostpolicy.AllowedPath{{Path: s.top, Access: hostpolicy.AccessReadWrite, ChangeOwner: true}}
	must(t, os.Mkdir(s.top+"/sandbox", 0o700))
	s.sandbox, err = os.Open(s.top + "/sandbox")
	must(t, err)
	t.Cleanup(func() { s.sandbox.Close() })
	return s
}

// give gives a path to owners, as a start does.
func (s *shared) give(ctx context.Context, path string, own *desired.Ownership, ids *idmap.Maps) error {
	st := with(setup.Source{Path: path, Kind: hostpolicy.VolumePath, Allowed: s.top, Owner: own, Field: "spec.volumes[0].hostPath"})
	st.Policy, st.Maps = s.policy, ids
	return GiveHostPaths(ctx, st, s.host, s.sandbox)
}

// Directories of the host are given to whom the manifest says, and nothing else of the host
// is, whatever is in the tree.
func TestGiveHostPath(t *testing.T) {
	t.Parallel()
	five, six := uint32(5), uint32(6)
	always := func(o desired.Ownership) *desired.Ownership {
		o.When = desired.OwnershipMismatch
		return &o
	}
	ids := &idmap.Maps{UIDs: []specs.LinuxIDMapping{{HostID: 70000, Size: 100}}, GIDs: []specs.LinuxIDMapping{{HostID: 80000, Size: 100}}}
	for name, c := range map[string]struct {
		own  *desired.Ownership
		ids  *idmap.Maps
		path string
		want map[string]string // below the shared directory
	}{
		"nobody says":         {nil, nil, "tree", map[string]string{"tree": "1:1 0755", "tree/f": "1:1 0640"}},
		"a mismatch":          {always(desired.Ownership{UID: &five, GID: &six, Mode: "0750"}), nil, "tree", map[string]string{"tree": "5:6 0750", "tree/f": "5:6 0640", "tree/d": "5:6 0755", "tree/d/g": "5:6 0640", "tree/link": "5:6 0777", "tree/fifo": "5:6 0600", "tree/suid": "5:6 0755", "tree/sock": "5:6 0600", "tree/null": "0:0 0600", "tree/disk": "0:0 0600"}},
		"the group":           {always(desired.Ownership{GID: &six}), nil, "tree", map[string]string{"tree": "1:6 0755", "tree/f": "1:6 0640"}},
		"mapped":              {always(desired.Ownership{UID: &five, GID: &six}), ids, "tree", map[string]string{"tree": "70005:80006 0755", "tree/d/g": "70005:80006 0640"}},
		"a sub directory":     {always(desired.Ownership{UID: &five}), nil, "tree/d", map[string]string{"tree": "1:1 0755", "tree/d": "5:1 0755", "tree/d/g": "5:1 0640", "tree/f": "1:1 0640"}},
		"fresh, and not":      {&desired.Ownership{UID: &five, When: desired.OwnershipFresh}, nil, "tree", map[string]string{"tree": "1:1 0755", "tree/f": "1:1 0640"}},
		"fresh":               {&desired.Ownership{UID: &five, Mode: "2770", When: desired.OwnershipFresh}, nil, "empty", map[string]string{"empty": "5:0 2770"}},
		"fresh, only a mode":  {&desired.Ownership{Mode: "0700", When: desired.OwnershipFresh}, nil, "empty", map[string]string{"empty": "0:0 0700"}},
		"a match":             {always(desired.Ownership{UID: new(uint32(1))}), nil, "tree", map[string]string{"tree/other": "9:9 0600"}},
		"with others' files":  {always(desired.Ownership{UID: &five}), nil, "tree", map[string]string{"tree/other": "5:9 0600"}},
		"mode and no mapping": {always(desired.Ownership{Mode: "0711"}), ids, "tree", map[string]string{"tree": "1:1 0711", "tree/f": "1:1 0640"}},
	} {
		s := newShared(t)
		tree := s.dir + "/tree"
		must(t, errors.Join(
			os.WriteFile(tree+"/f", nil, 0o640), os.WriteFile(tree+"/d/g", nil, 0o640), os.WriteFile(tree+"/other", nil, 0o600), os.WriteFile(s.dir+"/outside", nil, 0o600),
			os.WriteFile(tree+"/suid", nil, 0o755), os.WriteFile(s.dir+"/victim", nil, 0o600), os.Link(s.dir+"/victim", tree+"/hard"),
			os.Symlink(s.dir+"/outside", tree+"/link"), os.Symlink(s.dir, tree+"/d/up"), unix.Mkfifo(tree+"/fifo", 0o600), os.Mkdir(s.dir+"/empty", 0o755), os.Mkdir(s.dir+"/mounted", 0o755), os.WriteFile(s.dir+"/mounted/m", nil, 0o600), os.Mkdir(tree+"/mnt", 0o755),
			unix.Mknod(tree+"/null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), unix.Mknod(tree+"/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200))), unix.Mknod(tree+"/sock", unix.S_IFSOCK|0o600, 0),
		))
		for _, p := range []string{"", "/f", "/d", "/d/g", "/link", "/fifo", "/suid"} {
			must(t, os.Lchown(tree+p, 1, 1))
		}
		must(t, errors.Join(os.Lchown(tree+"/other", 9, 9), os.Chmod(tree+"/suid", 0o4755)))
		must(t, unix.Mount(s.dir+"/mounted", tree+"/mnt", "", unix.MS_BIND, ""))
		err := s.give(t.Context(), filepath.Join(s.dir, c.path), c.own, c.ids)
		if uerr := unix.Unmount(tree+"/mnt", unix.MNT_DETACH); err != nil || uerr != nil {
			t.Errorf("%s: %v %v", name, err, uerr)
		}
		for p, want := range c.want {
			if got := ownerAt(t, filepath.Join(s.dir, p)); got != want {
				t.Errorf("%s: %s is %s, expected %s", name, p, got, want)
			}
		}
		for _, p := range []string{"outside", "victim", "mounted", "mounted/m", ""} {
			if got := ownerAt(t, filepath.Join(s.dir, p)); !strings.HasPrefix(got, "0:0 ") {
				t.Errorf("%s: %s, which is outside, is %s", name, p, got)
			}
		}
	}
}

// What is never shared, what is no directory and what leads elsewhere is refused, and a
// retry helps where somebody can mend it.
func TestGiveHostPathRefuses(t *testing.T) {
	t.Parallel()
	five, many := uint32(5), uint32(1000)
	for name, c := range map[string]struct {
		path string
		own  desired.Ownership
		want string
	}{
		"the state":        {"state", desired.Ownership{UID: &five}, "sandboxctl's own"},
		"a part of it":     {"state/sandboxes", desired.Ownership{UID: &five}, "sandboxctl's own"},
		"what holds it":    {"", desired.Ownership{UID: &five}, "sandboxctl's own"},
		"a mount of it":    {"bind", desired.Ownership{UID: &five}, "sandboxctl's own"},
		"a file":           {"shared/file", desired.Ownership{UID: &five, Mode: "4755"}, "expected a directory"},
		"a link":           {"shared/link", desired.Ownership{UID: &five}, "symbolic link"},
		"through a link":   {"shared/link/d", desired.Ownership{UID: &five}, "symbolic link"},
		"nothing":          {"shared/none", desired.Ownership{UID: &five}, "no such file"},
		"proc":             {"proc", desired.Ownership{UID: &five}, "proc, which is never shared"},
		"nobody on a host": {"shared/tree", desired.Ownership{UID: &many}, "uid 1000 is nobody on the host"},
	} {
		s := newShared(t)
		must(t, errors.Join(os.WriteFile(s.dir+"/file", nil, 0o755), os.Symlink("tree", s.dir+"/link"), os.Mkdir(s.top+"/bind", 0o700), os.Mkdir(s.top+"/proc", 0o700)))
		must(t, errors.Join(unix.Mount(s.top+"/state", s.top+"/bind", "", unix.MS_BIND, ""), unix.Mount("proc", s.top+"/proc", "proc", 0, "")))
		own := c.own
		own.When = desired.OwnershipMismatch
		var ids *idmap.Maps
		if own.UID == &many {
			ids = &idmap.Maps{UIDs: []specs.LinuxIDMapping{{HostID: 70000, Size: 10}}, GIDs: []specs.LinuxIDMapping{{HostID: 70000, Size: 10}}}
		}
		err := s.give(t.Context(), filepath.Join(s.top, c.path), &own, ids)
		must(t, errors.Join(unix.Unmount(s.top+"/bind", unix.MNT_DETACH), unix.Unmount(s.top+"/proc", unix.MNT_DETACH)))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "spec.volumes[0].hostPath: ownership of "+filepath.Join(s.top, c.path)) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
		for _, p := range []string{"", "state", "state/sandboxes", "shared/file", "shared/tree"} {
			if got := ownerAt(t, filepath.Join(s.top, p)); !strings.HasPrefix(got, "0:0 ") {
				t.Errorf("%s: %s is %s", name, p, got)
			}
		}
	}
}

// While names are swapped for hard links to files of others, and directories for links,
// nothing outside changes its owner.
func TestGiveHostPathRacer(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	victims := s.top + "/victims"
	must(t, os.Mkdir(victims, 0o755))
	for i := range 20 {
		must(t, os.WriteFile(fmt.Sprintf("%s/%d", victims, i), nil, 0o600))
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Whatever fails meets what another round has left.
			name := fmt.Sprintf("%s/tree/%d", s.dir, i%20)
			_ = os.WriteFile(name, nil, 0o600)
			_ = os.Link(fmt.Sprintf("%s/%d", victims, i%20), name+".new")
			_ = os.Rename(name+".new", name)
			_ = os.Rename(s.dir+"/tree/d", s.dir+"/tree/e")
			_ = os.Symlink(victims, s.dir+"/tree/d")
			_ = os.Remove(name)
			_ = os.Remove(s.dir + "/tree/d")
			_ = os.Rename(s.dir+"/tree/e", s.dir+"/tree/d")
		}
	}()
	for i := range 300 {
		id := uint32(i%2 + 5)
		err := s.give(t.Context(), s.dir+"/tree", &desired.Ownership{UID: &id, When: desired.OwnershipMismatch}, nil)
		if err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-done
	for i := range 20 {
		if got := ownerAt(t, fmt.Sprintf("%s/%d", victims, i)); got != "0:0 0600" {
			t.Errorf("a file of others is %s", got)
		}
	}
	if got := ownerAt(t, victims); got != "0:0 0755" {
		t.Errorf("the directory of others is %s", got)
	}
}

// A change that is cut short is told, and the next start goes on with it.
func TestGiveHostPathResumes(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	for i := range tellEvery + 100 {
		must(t, os.WriteFile(fmt.Sprintf("%s/tree/%06d", s.dir, i), nil, 0o600))
	}
	five := uint32(5)
	own := &desired.Ownership{UID: &five, When: desired.OwnershipMismatch}
	ctx, cancel := context.WithCancelCause(t.Context())
	st := with(setup.Source{Path: s.dir + "/tree", Kind: hostpolicy.VolumePath, Allowed: s.top, Owner: own})
	st.Policy = s.policy
	if err := giveHostPath(ctx, st, &st.App().Volumes[0], s.host, func(p *Progress) {
		tellIn(s.sandbox, s.dir+"/tree", p)
		cancel(&operation.Cancelled{Reason: "the manifest is gone"})
	}); err == nil || !strings.Contains(err.Error(), "the manifest is gone") {
		t.Fatalf("it was not cut short: %v", err)
	}
	if p := HostOwnership(s.sandbox); p == nil || p.Path != s.dir+"/tree" || p.Files != tellEvery || p.Began.IsZero() {
		t.Errorf("told %+v", p)
	}
	if got := ownerAt(t, s.dir+"/tree"); got != "0:0 0755" {
		t.Errorf("it was cut short, and the directory is %s", got)
	}
	must(t, s.give(t.Context(), s.dir+"/tree", own, nil))
	for _, p := range []string{"", "/000000", fmt.Sprintf("/%06d", tellEvery+99)} {
		if got := ownerAt(t, s.dir+"/tree"+p); got[:3] != "5:0" {
			t.Errorf("%s is %s", p, got)
		}
	}
	if p := HostOwnership(s.sandbox); p != nil {
		t.Errorf("still told: %+v", p)
	}
}

// A path of more than a page, which a sandbox can make, keeps no start from succeeding: what
// is there is left alone, and the rest is given.
func TestGiveHostPathLong(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 15, 16, 17, 40} {
		s := newShared(t)
		must(t, os.WriteFile(s.dir+"/tree/f", nil, 0o600))
		dir, err := os.Open(s.dir + "/tree")
		must(t, err)
		for range n {
			name := strings.Repeat("d", 255)
			must(t, unix.Mkdirat(int(dir.Fd()), name, 0o755))
			next, err := openDir(dir, name, unix.O_RDONLY)
			must(t, errors.Join(err, dir.Close()))
			dir = next
		}
		must(t, unix.Mknodat(int(dir.Fd()), "last", unix.S_IFREG|0o600, 0))
		five := uint32(5)
		must(t, s.give(t.Context(), s.dir+"/tree", &desired.Ownership{UID: &five, When: desired.OwnershipMismatch}, nil))
		var st, of unix.Stat_t
		must(t, errors.Join(unix.Fstatat(int(dir.Fd()), "last", &st, 0), unix.Fstat(int(dir.Fd()), &of), dir.Close()))
		if st.Uid != 5 && n < 15 || of.Uid != 5 {
			t.Errorf("%d deep: the file is of %d, its directory of %d", n, st.Uid, of.Uid)
		}
		for _, p := range []string{"", "/f"} {
			if got := ownerAt(t, s.dir+"/tree"+p); !strings.HasPrefix(got, "5:0 ") {
				t.Errorf("%d deep: %q is %s", n, p, got)
			}
		}
	}
}

// What a start that was killed has told is gone with the next one, also where there is
// nothing to do any more.
func TestGiveHostPathTold(t *testing.T) {
	t.Parallel()
	zero, five := uint32(0), uint32(5)
	for name, own := range map[string]desired.Ownership{
		"nothing to do": {UID: &zero, When: desired.OwnershipMismatch}, "a little": {UID: &five, When: desired.OwnershipMismatch}, "fresh": {UID: &five, When: desired.OwnershipFresh},
	} {
		s := newShared(t)
		tellIn(s.sandbox, s.dir+"/tree", &Progress{Files: tellEvery})
		if HostOwnership(s.sandbox) == nil {
			t.Fatal("not told")
		}
		must(t, s.give(t.Context(), s.dir+"/tree", &own, nil))
		if p := HostOwnership(s.sandbox); p != nil {
			t.Errorf("%s: still told: %+v", name, p)
		}
	}
}

// A file system that was just made is given to its owner where it is mounted.
func TestGiveNewFilesystem(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	at := s.dir + "/mounted"
	must(t, os.MkdirAll(at+"/lost+found", 0o700))
	five := uint32(5)
	must(t, s.give(t.Context(), at, &desired.Ownership{UID: &five, When: desired.OwnershipFresh}, nil))
	for path, want := range map[string]uint32{at: 5, at + "/lost+found": 0} {
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		if st.Uid != want {
			t.Errorf("%s is %d's", path, st.Uid)
		}
	}
}
