// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"archive/tar"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/projquota"
	"sandboxctl.dev/launcher/projquota/projquotatest"
	"sandboxctl.dev/launcher/setup"
)

// errKilled is how a call ends that the program did not live to make.
var errKilled = errors.New("killed")

// disk is a file system with project quotas, in memory. Directories are told by their inodes.
type disk struct {
	mu     sync.Mutex
	none   error
	of     map[uint64]uint32
	limits map[uint32]int64
	others map[uint32]bool // projects that somebody else uses
	given  []uint32        // every project that a directory was given to
	// left is how many calls that change something are made before the program dies, -1 for
	// all.
	left int
}

func newDisk() *disk {
	return &disk{of: map[uint64]uint32{}, limits: map[uint32]int64{}, others: map[uint32]bool{}, left: -1}
}

func inode(dir *os.File) uint64 {
	var st unix.Stat_t
	_ = unix.Fstat(int(dir.Fd()), &st)
	return st.Ino
}

// changes makes a call that changes something, before and after which the program may die.
func (d *disk) changes(f func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for half := range 2 {
		if d.left == 0 {
			return errKilled
		}
		d.left--
		if half == 0 {
			f()
		}
	}
	return nil
}

func (d *disk) quotas() *quotas {
	return &quotas{
		available: func(*os.File) error { return d.none },
		project: func(dir *os.File) (uint32, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.of[inode(dir)], nil
		},
		assign: func(dir *os.File, id uint32) error {
			return d.changes(func() {
				d.of[inode(dir)] = id
				d.given = append(d.given, id)
			})
		},
		get: func(_ *os.File, id uint32) (projquota.Usage, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			u := projquota.Usage{Size: d.limits[id]}
			if u.Size > 0 {
				u.MostFiles = u.Size/4096 + 1024
			}
			return u, nil
		},
		limit: func(_ *os.File, id uint32, size int64) error {
			return d.changes(func() { d.limits[id] = size })
		},
		free: func(_ *os.File, from uint32) (uint32, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			for d.others[from] {
				from++
			}
			return from, nil
		},
	}
}

// sizedStore is a store on such a disk.
func sizedStore(t *testing.T, state *os.File, d *disk) *Store {
	t.Helper()
	s, err := Open(state)
	must(t, err)
	t.Cleanup(s.Close)
	s.quotas = d.quotas()
	return s
}

// A volume is made with its size, which grows and shrinks. Nobody who says nothing takes a
// size away.
func TestSize(t *testing.T) {
	t.Parallel()
	dir, _ := state(t)
	d := newDisk()
	s := sizedStore(t, dir, d)
	declare := func(name string, size int64, want bool) {
		t.Helper()
		changed, err := s.Declare(t.Context(), name, Want{Size: size})
		must(t, err)
		e, err := s.Look(name)
		must(t, err)
		if changed != want || size != 0 && (e.Size != size || d.limits[e.Project] != size) {
			t.Errorf("%s %d: changed %t, %+v, %d", name, size, changed, e, d.limits[e.Project])
		}
	}
	declare("a", 1<<20, true)
	declare("a", 1<<20, false)
	declare("a", 8<<20, true)
	declare("a", 64<<10, true)
	declare("a", 0, false)
	e, err := s.Look("a")
	must(t, err)
	if e.Size != 64<<10 || !e.Unused || e.CreatedFor != "" {
		t.Errorf("%+v", e)
	}
	// Somebody has changed the limit beside this program.
	d.limits[e.Project] = 0
	declare("a", 64<<10, false)
	// One without a size gets one later, and has its own project.
	declare("b", 0, true)
	declare("b", 1<<20, true)
	b, err := s.Look("b")
	must(t, err)
	if b.Project == e.Project || b.Project == 0 {
		t.Errorf("%+v %+v", e, b)
	}
	// Its limit goes with it.
	must(t, s.Remove(t.Context(), "b", func() error { return nil }))
	if d.limits[b.Project] != 0 {
		t.Error("a removed volume has a limit")
	}
	// A start enforces the size that there is, whatever its manifest says, which may be an old
	// one; of a volume without a size it sets one.
	for name, want := range map[string]int64{"a": 64 << 10, "c": 2 << 20} {
		if name == "a" {
			d.limits[e.Project] = 0
		}
		v, err := s.use(t.Context(), name, owner{mode: 0o755}, "web", 2<<20)
		must(t, err)
		v.Close()
		if e, err := s.Look(name); err != nil || e.Size != want || d.limits[e.Project] != want || e.CreatedFor != "web" || e.Unused {
			t.Errorf("%+v %v", e, err)
		}
	}
	// Nor does it start where the size of its volume is not enforced any more.
	d.none = projquota.ErrNone
	if _, err := s.use(t.Context(), "a", owner{mode: 0o755}, "web", 0); !errors.Is(err, ErrNoSizes) || !strings.Contains(err.Error(), "volume backup") {
		t.Errorf("%v", err) // it says how to be rid of a size that no manifest gives
	}
}

// Where a size can't be enforced it is refused before anything is made, and says what helps;
// what has none is as before.
func TestSizeRefused(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	d := newDisk()
	s := sizedStore(t, dir, d)
	d.none = projquota.ErrNone
	_, err := s.Declare(t.Context(), "a", Want{Size: 1 << 20})
	if !errors.Is(err, ErrNoSizes) || !operation.PreconditionFailed(err) || !strings.Contains(err.Error(), "prjquota") {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(filepath.Join(path, "a")); err == nil {
		t.Error("half of it is there")
	}
	_, err = s.Declare(t.Context(), "a", Want{})
	must(t, err)
	if len(d.given) > 0 {
		t.Error("a project where there are none")
	}
	// It was made without a project: no limit would hold for what is in it.
	d.none = nil
	if _, err := s.Declare(t.Context(), "a", Want{Size: 1 << 20}); !errors.Is(err, ErrNoSizes) || !strings.Contains(err.Error(), "volume backup") {
		t.Errorf("%v", err)
	}
	// So is one that was copied from another disk, with its meta.json.
	_, err = s.Declare(t.Context(), "b", Want{Size: 1 << 20})
	must(t, err)
	can := func(name string, want error) {
		t.Helper()
		if err := s.CanSize(name); !errors.Is(err, want) {
			t.Errorf("%s: %v, expected %v", name, err, want)
		}
	}
	// Who asks before is told the same.
	can("a", ErrNoSizes)
	can("b", nil)
	can("none", nil)
	clear(d.of)
	can("b", ErrNoSizes)
	if _, err := s.Declare(t.Context(), "b", Want{Size: 2 << 20}); !errors.Is(err, ErrNoSizes) {
		t.Errorf("%v", err)
	}
}

// No project is given to two volumes, whenever a program dies, and none that somebody else
// uses; the next try makes the volume as it should be.
func TestProjectsAfterCrash(t *testing.T) {
	t.Parallel()
	for left := range 7 {
		for _, lost := range []bool{false, true} {
			dir, path := state(t)
			d := newDisk()
			_, err := sizedStore(t, dir, d).Declare(t.Context(), "first", Want{Size: 1 << 20})
			must(t, err)
			d.others[d.given[0]+1] = true
			d.left = left
			_, err = sizedStore(t, dir, d).Declare(t.Context(), "a", Want{Size: 1 << 20})
			if killed := errors.Is(err, errKilled); killed != (left < 4) || !killed && err != nil {
				t.Fatalf("%d: %v", left, err)
			}
			d.left = -1
			if lost {
				must(t, os.WriteFile(filepath.Join(filepath.Dir(path), projquota.IDsFile), []byte("{"), 0o600))
			}
			s := sizedStore(t, dir, d)
			for _, name := range []string{"a", "b"} {
				_, err = s.Declare(t.Context(), name, Want{Size: 1 << 20})
				must(t, err)
			}
			seen := map[uint32]string{}
			for _, id := range d.given {
				if seen[id] != "" || d.others[id] || !projquota.ValidID(id) {
					t.Errorf("%d: project %d is given twice, or is another's: %v", left, id, d.given)
				}
				seen[id] = "x"
			}
			for _, name := range []string{"first", "a", "b"} {
				e, err := s.Look(name)
				must(t, err)
				data, err := os.Open(filepath.Join(path, name, DataDir))
				must(t, err)
				if e.Problem != "" || e.Size != 1<<20 || d.limits[e.Project] != 1<<20 || d.of[inode(data)] != e.Project {
					t.Errorf("%d %s: %+v, limit %d", left, name, e, d.limits[e.Project])
				}
				data.Close()
			}
		}
	}
}

// A copy of a state directory has the projects of the original on record. Nothing that is done
// to the copy changes a limit of the original, or shows what that holds.
func TestCopiedState(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]bool{"removed": true, "resized": false} {
		dir, path := state(t)
		copied, copyPath := state(t)
		d := newDisk()
		s := sizedStore(t, dir, d)
		_, err := s.Declare(t.Context(), "a", Want{Size: 1 << 20})
		must(t, err)
		c := sizedStore(t, copied, d)
		must(t, os.CopyFS(copyPath, os.DirFS(path)))
		must(t, os.Chmod(filepath.Join(copyPath, "a"), 0o700))
		e, err := c.Look("a")
		must(t, err)
		if u := c.Quota(&e.Meta); u != nil {
			t.Errorf("%s: the copy shows %+v", name, u)
		}
		if u := s.Quota(&e.Meta); u == nil || u.Size != 1<<20 {
			t.Errorf("%s: the original shows %+v", name, u)
		}
		if remove {
			must(t, c.Remove(t.Context(), "a", func() error { return nil }))
		} else if _, err := c.Declare(t.Context(), "a", Want{Size: 8 << 20}); !errors.Is(err, ErrNoSizes) {
			t.Errorf("%s: %v", name, err)
		}
		if d.limits[e.Project] != 1<<20 {
			t.Errorf("%s: the limit of the original is %d", name, d.limits[e.Project])
		}
	}
}

// Many programs at once give no two volumes one project.
func TestProjectsTogether(t *testing.T) {
	t.Parallel()
	dir, _ := state(t)
	d := newDisk()
	const many = 16
	var all sync.WaitGroup
	for i := range many {
		s := sizedStore(t, dir, d)
		all.Go(func() {
			if _, err := s.Declare(t.Context(), fmt.Sprintf("v%d", i%8), Want{Size: 1 << 20}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	seen := map[uint32]bool{}
	for _, id := range d.given {
		if seen[id] {
			t.Errorf("%d is given twice: %v", id, d.given)
		}
		seen[id] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d projects for 8 volumes", len(seen))
	}
}

// A volume that was declared belongs to its first sandbox, in its ids, unless something is in
// it; a document counts before what the sandbox says.
func TestFirstUse(t *testing.T) {
	t.Parallel()
	mapped := &idmap.Maps{UIDs: mapping(100000), GIDs: mapping(100000)}
	for name, c := range map[string]struct {
		spec     *desired.VolumeSpec
		said     *desired.Ownership
		ids      *idmap.Maps
		filled   bool
		uid, gid uint32
		mode     uint32
	}{
		"root":             {nil, nil, nil, false, 0, 0, 0o755},
		"root, mapped":     {nil, nil, mapped, false, 100000, 100000, 0o755},
		"document":         {&desired.VolumeSpec{Ownership: &desired.FreshOwnership{UID: new(uint32(9)), Mode: "0700"}}, nil, nil, false, 9, 0, 0o700},
		"document, mapped": {&desired.VolumeSpec{Ownership: &desired.FreshOwnership{UID: new(uint32(9))}}, nil, mapped, false, 100009, 100000, 0o755},
		"sandbox":          {nil, &desired.Ownership{UID: new(uint32(7)), When: desired.OwnershipFresh}, nil, false, 7, 0, 0o755},
		"both":             {&desired.VolumeSpec{Ownership: &desired.FreshOwnership{UID: new(uint32(9))}}, &desired.Ownership{UID: new(uint32(7)), GID: new(uint32(8)), When: desired.OwnershipFresh}, nil, false, 9, 8, 0o755},
		"filled":           {nil, &desired.Ownership{UID: new(uint32(7)), When: desired.OwnershipFresh}, nil, true, 0, 0, 0o755},
	} {
		dir, path := state(t)
		s := sizedStore(t, dir, newDisk())
		_, err := s.Declare(t.Context(), "a", Want{Fresh: c.spec.Fresh(nil)})
		must(t, err)
		if c.filled {
			must(t, os.WriteFile(filepath.Join(path, "a", DataDir, "file"), nil, 0o600))
		}
		st := with(setup.Source{Volume: "a", Owner: c.said, Declared: c.spec})
		st.Maps = c.ids
		for range 2 {
			o, err := start(t, dir, st)
			must(t, err)
			o.Close()
			var got unix.Stat_t
			must(t, unix.Stat(filepath.Join(path, "a", DataDir), &got))
			if got.Uid != c.uid || got.Gid != c.gid || got.Mode&0o7777 != c.mode {
				t.Errorf("%s: %d:%d %o", name, got.Uid, got.Gid, got.Mode&0o7777)
			}
			// Once: what a sandbox has changed stays.
			c.mode = 0o711
			must(t, os.Chmod(filepath.Join(path, "a", DataDir), 0o711))
		}
		if e, err := s.Look("a"); err != nil || e.Unused || e.CreatedFor != "web" {
			t.Errorf("%s: %+v %v", name, e, err)
		}
	}
}

// A volume that was declared and not used yet can be restored into; one that was used can not.
func TestRestoreDeclared(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	s := sizedStore(t, dir, newDisk())
	from, err := s.use(t.Context(), "from", owner{mode: 0o755}, "web", 0)
	must(t, err)
	from.Close()
	must(t, os.WriteFile(filepath.Join(path, "from", DataDir, "file"), []byte("x"), 0o600))
	archive := filepath.Join(t.TempDir(), "a.tar")
	out, err := os.Create(archive)
	must(t, err)
	_, err = s.Backup(t.Context(), "from", out)
	must(t, errors.Join(err, out.Close()))
	_, err = s.Declare(t.Context(), "to", Want{})
	must(t, err)
	for _, want := range []error{nil, ErrExists} {
		in, err := os.Open(archive)
		must(t, err)
		if err := s.Restore(t.Context(), "to", in, Limits{}); !errors.Is(err, want) {
			t.Errorf("%v, expected %v", err, want)
		}
		in.Close()
	}
	_, err = s.Declare(t.Context(), "to", Want{Size: 1 << 20})
	must(t, err) // it has a project as any other
}

// The size that a volume is declared to have is in force while it is restored into, whoever
// says it: what was declared is found at the volume, or the caller has it from the documents.
func TestRestoreSize(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	for name, c := range map[string]struct {
		before int64
		most   Limits
		none   error
		want   error
	}{
		"nobody says":         {0, Limits{}, nil, nil},
		"it was declared":     {size, Limits{}, nil, nil},
		"the documents":       {0, Limits{Size: size}, nil, nil},
		"both":                {2 * size, Limits{Size: size}, nil, nil},
		"can't be enforced":   {0, Limits{Size: size}, ErrNoSizes, ErrNoSizes},
		"nobody can or wants": {0, Limits{}, ErrNoSizes, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, path := state(t)
			d := newDisk()
			s := sizedStore(t, dir, d)
			if c.before != 0 {
				_, err := s.Declare(t.Context(), "v", Want{Size: c.before})
				must(t, err)
			}
			d.none = c.none
			held := int64(-1)
			archive := &spied{r: bytes.NewReader(archiveOf(t, &tar.Header{Name: "a", Size: 100, Mode: 0o600})), at: func() {
				if held < 0 && len(d.given) > 0 {
					held = d.limits[d.given[len(d.given)-1]]
				}
			}}
			if err := s.Restore(t.Context(), "v", archive, c.most); !errors.Is(err, c.want) {
				t.Fatalf("%v, expected %v", err, c.want)
			}
			if c.want != nil {
				if left, err := os.ReadDir(path); err != nil || len(left) > 0 {
					t.Errorf("left: %v %v", left, err)
				}
				return
			}
			want := cmp.Or(c.most.Size, c.before)
			e, err := s.Look("v")
			if err != nil || e.Size != want || c.none == nil && held != want {
				t.Errorf("it held %d while it was unpacked, and says %+v, expected %d, %v", held, e, want, err)
			}
		})
	}
}

// spied calls at before each read.
type spied struct {
	r  io.Reader
	at func()
}

func (w *spied) Read(b []byte) (int, error) {
	w.at()
	return w.r.Read(b)
}

// On a real file system no more is unpacked than the size of the volume.
func TestRestoreSizeOnDisk(t *testing.T) {
	t.Parallel()
	at := projquotatest.Disk(t, 64)
	if at == "" {
		return // TestSizeOnDisk has what is to be then
	}
	dir, path := stateIn(t, at+"/s")
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	archive := archiveOf(t, &tar.Header{Name: "a", Size: 4 << 20, Mode: 0o600})
	content := bytes.Repeat([]byte("x"), 4<<20)
	copy(archive[512:], content)
	if err := s.Restore(t.Context(), "v", bytes.NewReader(archive), Limits{Size: 1 << 20}); !errors.Is(err, ErrArchive) || !strings.Contains(err.Error(), "more than the size of the volume") {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(path); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	must(t, s.Restore(t.Context(), "v", bytes.NewReader(archive), Limits{Size: 8 << 20}))
}

// On a real file system a sandbox's files count, and no more fit than the size says.
func TestSizeOnDisk(t *testing.T) {
	t.Parallel()
	at := projquotatest.Disk(t, 64)
	if at == "" {
		dir, _ := state(t)
		if err := CanLimit(dir); !errors.Is(err, ErrNoSizes) {
			t.Errorf("a size is promised that nobody enforces: %v", err)
		}
		return
	}
	dir, path := stateIn(t, at+"/s")
	st := with(setup.Source{Volume: "a", Size: 1 << 20})
	o, err := start(t, dir, st)
	must(t, err)
	put(t, st.App().Volumes[0].Dir, "file", strings.Repeat("x", 300<<10))
	o.Close()
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	e, err := s.Look("a")
	must(t, err)
	if u := s.Quota(&e.Meta); u == nil || u.Size != 1<<20 || u.Bytes < 300<<10 {
		t.Errorf("%+v %+v", e, u)
	}
	var fs unix.Statfs_t
	must(t, unix.Statfs(filepath.Join(path, "a", DataDir), &fs))
	if total := int64(fs.Blocks) * fs.Bsize; total != 1<<20 {
		t.Errorf("df shows %d bytes", total)
	}
}

func mapping(host uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{HostID: host, Size: 65536}}
}
