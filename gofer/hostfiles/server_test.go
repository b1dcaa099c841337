// SPDX-License-Identifier: Apache-2.0

package hostfiles

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/lisafs"
	"gvisor.dev/gvisor/pkg/unet"

	"sandboxctl.dev/actual/hosttest"
)

var bg = context.Background()

// client is a client of a server of its own.
type client struct {
	*lisafs.Client
	t     *testing.T
	root  lisafs.ClientFD
	mount int
}

// serve serves a directory to the client it returns.
func serve(t *testing.T, dir string, config Config, readonly bool) *client {
	t.Helper()
	if err := OpenProcSelfFD("/proc/self/fd"); err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := unet.SocketPair(false)
	if err != nil {
		t.Fatal(err)
	}
	server := lisafs.NewServer()
	conn, err := server.CreateConnection(ours, dir, ConnectionOpts(readonly), NewConnectionImpl(config))
	if err != nil {
		t.Fatal(err)
	}
	server.StartConnection(conn)
	c, root, mount, err := lisafs.NewClient(theirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		server.Wait()
		if mount >= 0 {
			unix.Close(mount)
		}
	})
	return &client{Client: c, t: t, root: c.NewFD(root.ControlFD), mount: mount}
}

func (c *client) walk(names ...string) *lisafs.ClientFD {
	c.t.Helper()
	_, inodes, err := c.root.WalkMultiple(bg, names)
	if err != nil || len(inodes) != len(names) {
		c.t.Fatalf("walk %q: %d found, %v", names, len(inodes), err)
	}
	f := c.NewFD(inodes[len(inodes)-1].ControlFD)
	return &f
}

func (c *client) setStat(f *lisafs.ClientFD, mask uint32) (uint32, error) {
	failed, failure, err := f.SetStat(bg, &linux.Statx{Mask: mask, Mode: 0o4711, Size: 2, UID: 12, GID: 34, Mtime: linux.StatxTimestamp{Sec: 1234, Nsec: 5}})
	return failed, errors.Join(failure, err)
}

// A read-only connection refuses every change, and changes nothing.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/f", []byte("text"), 0o600), os.Mkdir(dir+"/d", 0o700)); err != nil {
		t.Fatal(err)
	}
	c := serve(t, dir, Config{}, true)
	f := c.walk("f")
	id, host, err := f.OpenAt(bg, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(host)
	if _, err := unix.Write(host, []byte("x")); !errors.Is(err, unix.EBADF) {
		t.Errorf("the descriptor that is given away can be written to: %v", err)
	}
	o := c.NewFD(id)
	second := func(_ any, err error) error { return err }
	third := func(_, _ any, err error) error { return err }
	create := func() error {
		_, _, _, err := c.root.OpenCreateAt(bg, "new", unix.O_RDWR, 0o600, 0, 0)
		return err
	}
	for what, err := range map[string]error{
		"open to write": third(f.OpenAt(bg, unix.O_WRONLY)), "open truncated": third(f.OpenAt(bg, unix.O_RDONLY|unix.O_TRUNC)), "create": create(),
		"write": second(o.Write(bg, []byte("x"), 0)), "allocate": o.Allocate(bg, 0, 0, 10), "set": second(c.setStat(f, unix.STATX_MODE)),
		"mkdir": second(c.root.MkdirAt(bg, "new", 0o700, 0, 0)), "mknod": second(c.root.MknodAt(bg, "new", unix.S_IFREG, 0, 0, 0, 0)),
		"symlink": second(c.root.SymlinkAt(bg, "new", "f", 0, 0)), "link": second(c.root.LinkAt(bg, f.ID(), "new")),
		"unlink": c.root.UnlinkAt(bg, "f", 0), "rmdir": c.root.UnlinkAt(bg, "d", unix.AT_REMOVEDIR), "rename": c.root.RenameAt(bg, "f", c.root.ID(), "new", 0),
		"exchange": c.root.RenameAt(bg, "f", c.root.ID(), "d", unix.RENAME_EXCHANGE), "set attribute": f.SetXattr(bg, "user.a", "b", 0),
		"remove attribute": f.RemoveXattr(bg, "user.a"), "bind": third(c.root.BindAt(bg, linux.SOCK_STREAM, "new", 0o600, 0, 0)),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
	names, err := os.ReadDir(dir)
	text, err2 := os.ReadFile(dir + "/f")
	if len(names) != 2 || string(text) != "text" || err != nil || err2 != nil {
		t.Errorf("changed: %v %q %v %v", names, text, err, err2)
	}
}

// All attributes are tried, and those that failed are told.
func TestSetStat(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "another owner needs root")
	dir := t.TempDir()
	kinds(t, dir)
	c := serve(t, dir, Config{}, false)
	const all = unix.STATX_MODE | unix.STATX_UID | unix.STATX_GID | unix.STATX_SIZE | unix.STATX_MTIME
	for name, want := range map[string]uint32{
		"file": 0, "dir": unix.STATX_SIZE, "fifo": unix.STATX_SIZE, "socket": unix.STATX_SIZE, "null": unix.STATX_SIZE, "link": unix.STATX_SIZE | unix.STATX_MODE,
	} {
		failed, err := c.setStat(c.walk(name), all)
		if failed != want || (err == nil) != (want == 0) {
			t.Errorf("%s: failed %#x, want %#x: %v", name, failed, want, err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		if want&unix.STATX_MODE == 0 && st.Mode&permissions != 0o4711 {
			t.Errorf("%s: mode %o", name, st.Mode)
		}
		if st.Uid != 12 || st.Gid != 34 || st.Mtim != (unix.Timespec{Sec: 1234, Nsec: 5}) {
			t.Errorf("%s: %+v", name, st)
		}
	}
	// What is not in the mask stays.
	f := c.walk("file")
	if failed, err := c.setStat(f, unix.STATX_GID); failed != 0 || err != nil {
		t.Error(err)
	}
	if failed, failure, err := f.SetStat(bg, &linux.Statx{Mask: unix.STATX_SIZE, Size: math.MaxUint64}); failed != unix.STATX_SIZE || failure == nil || err != nil {
		t.Errorf("a size that no file has: %#x %v %v", failed, failure, err)
	}
}

// A hostile client gets errors, and neither ends this process nor takes memory.
func TestHostileClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kinds(t, dir)
	c := serve(t, dir, Config{}, false)
	f := c.walk("file")
	id, host, err := f.OpenAt(bg, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(host)
	o := c.NewFD(id)
	listed, _, err := c.walk("dir").OpenAt(bg, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	second := func(_ any, err error) error { return err }
	third := func(_, _ any, err error) error { return err }
	buf := make([]byte, 8)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for what, err := range map[string]error{
		"no access mode": third(f.OpenAt(bg, unix.O_ACCMODE)), "punch a hole": o.Allocate(bg, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1),
		"allocate beyond": o.Allocate(bg, 0, math.MaxUint64, 2), "allocate too much": o.Allocate(bg, 0, math.MaxInt64, 2),
		"read beyond": second(o.Read(bg, buf, math.MaxUint64)), "write beyond": second(o.Write(bg, buf, math.MaxInt64)),
		"up": second(c.root.Walk(bg, "..")), "path": second(c.root.Walk(bg, "dir/x")), "no name": second(c.root.Walk(bg, "")),
		"make up": second(c.root.MkdirAt(bg, "../x", 0o700, 0, 0)), "make a device": second(c.root.MknodAt(bg, "x", unix.S_IFCHR|0o666, 0, 0, 3, 1)),
		"make a disk": second(c.root.MknodAt(bg, "x", unix.S_IFBLK, 0, 0, 0, 0)), "make a fifo": second(c.root.MknodAt(bg, "x", unix.S_IFIFO|0o600, 0, 0, 0, 0)),
		"make a socket": second(c.root.MknodAt(bg, "x", unix.S_IFSOCK|0o600, 0, 0, 0, 0)), "make what is nothing": second(c.root.MknodAt(bg, "x", 0o600, 0, 0, 0, 0)),
		"rename whiteout": c.root.RenameAt(bg, "file", c.root.ID(), "x", unix.RENAME_WHITEOUT), "unlink with flags": c.root.UnlinkAt(bg, "file", 0x40),
		"bind": third(c.root.BindAt(bg, linux.SOCK_STREAM, "x", 0o600, 0, 0)), "attribute of a fifo": second(c.walk("fifo").GetXattr(bg, "user.a", 10)),
		"no attribute": second(f.GetXattr(bg, "user.a", math.MaxUint32-100)), "list a file": second(o.Getdents64(bg, 1000)), "wrong kind": c.root.RenameAt(bg, "file", o.ID(), "x", 0),
	} {
		if err == nil {
			t.Errorf("%s is done", what)
		}
		if errors.Is(err, unix.EREMOTEIO) {
			t.Errorf("%s: the server panicked", what)
		}
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 1<<30 {
		t.Errorf("%d bytes were allocated", after.TotalAlloc-before.TotalAlloc)
	}
	sock := c.walk("socket")
	if _, err := sock.Connect(bg, linux.SOCK_STREAM, 0, 0); err == nil {
		t.Error("a socket of the host is connected to")
	}
	if _, err := os.Lstat(dir + "/x"); err == nil {
		t.Error("something was made")
	}
	d := c.NewFD(listed)
	for _, n := range []int32{1, -1, math.MinInt32, math.MaxInt32} {
		if _, err := d.Getdents64(bg, n); errors.Is(err, unix.EREMOTEIO) {
			t.Errorf("list %d: the server panicked", n)
		}
	}
	if names, err := d.Getdents64(bg, -1000); err != nil || len(names) != 2 {
		t.Errorf("list: %v %v", names, err)
	}
}

// Every file is listed once, also of a directory that takes many answers.
func TestList(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const files = 3000
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%s", i, strings.Repeat("n", i%200))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := serve(t, dir, Config{}, false)
	id, _, err := c.root.OpenAt(bg, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	d := c.NewFD(id)
	for range 2 {
		seen := map[string]bool{}
		for count := int32(-1 << 20); ; count = 1 << 20 {
			entries, err := d.Getdents64(bg, count)
			if err != nil {
				t.Fatal(err)
			}
			if len(entries) == 0 {
				break
			}
			for _, e := range entries {
				if seen[string(e.Name)] {
					t.Errorf("%s is there twice", e.Name)
				}
				seen[string(e.Name)] = true
			}
		}
		if len(seen) != files+2 {
			t.Errorf("%d entries", len(seen))
		}
	}
}

// A walk ends where the path does.
func TestWalkStat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/a/b/c", 0o700), os.WriteFile(dir+"/a/b/c/f", nil, 0o600), os.Symlink("b", dir+"/a/l"), os.WriteFile(dir+"/f", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	c := serve(t, dir, Config{}, false)
	for path, want := range map[string]int{
		"/a/b/c/f": 5, "a/b/c/f": 4, "a/b/c/nosuch": 3, "a/nosuch/c": 1, "a/l": 2, "a/l/c": 2, "f": 1, "f/x": 1, "f/x/y": 1, "nosuch": 0, "": 1, "a": 1,
	} {
		names := strings.Split(path, "/")
		stats, err := c.root.WalkStat(bg, names)
		if err != nil || len(stats) != want {
			t.Errorf("%q: %d, want %d: %v", path, len(stats), want, err)
		}
		for i, s := range stats {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(append([]string{dir}, names[:i+1]...)...), &st); err != nil || st.Ino != s.Ino {
				t.Errorf("%q: %d is another file: %v", path, i, err)
			}
		}
	}
}

// A client that works on the files by itself gets the mount point, and only that
// client gets a descriptor of a directory.
func TestDonate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, donate := range []bool{false, true} {
		c := serve(t, dir, Config{DonateMountPointFD: donate}, false)
		_, host, err := c.root.OpenAt(bg, unix.O_RDONLY)
		if err != nil || (host >= 0) != donate || (c.mount >= 0) != donate {
			t.Errorf("%v: %d %d %v", donate, host, c.mount, err)
		}
		if host >= 0 {
			unix.Close(host)
		}
	}
}
