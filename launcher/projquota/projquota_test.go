// SPDX-License-Identifier: Apache-2.0

package projquota

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/projquota/projquotatest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The kernel reads and writes these: their sizes are those of its structures.
func TestLayout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string][2]uintptr{
		"fsxattr": {unsafe.Sizeof(xattr{}), 28}, "if_dqblk": {unsafe.Sizeof(limits{}), 72}, "fs_quota_statv": {unsafe.Sizeof(state{}), 160},
		"dqb_valid": {unsafe.Offsetof(limits{}.valid), 64}, "qs_flags": {unsafe.Offsetof(state{}.flags), 2}, "fsx_projid": {unsafe.Offsetof(xattr{}.project), 12},
	} {
		if c[0] != c[1] {
			t.Errorf("%s: %d, expected %d", name, c[0], c[1])
		}
	}
}

// A file system without project quotas says so, whatever it is, and nothing is taken for a
// limit there.
func TestNone(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "only root may ask for quotas")
	for _, path := range []string{t.TempDir(), "/proc", "/dev", "/sys", "/"} {
		dir, err := os.Open(path)
		must(t, err)
		defer dir.Close()
		err = Available(dir)
		if err == nil && path == "/" {
			continue // a host may have them
		}
		if path != "/" && !errors.Is(err, ErrNone) && err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if (path == "/proc" || path == "/dev") && err == nil {
			t.Errorf("%s has project quotas", path)
		}
	}
}

// What is made in a directory of a project counts, up to the limit, which can grow and
// shrink, also below what there is. Projects of others are left alone.
func TestDisk(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "only root may mount")
	at := projquotatest.Disk(t, 64)
	if at == "" {
		dir, err := os.Open(t.TempDir())
		must(t, err)
		defer dir.Close()
		if err := Available(dir); !errors.Is(err, ErrNone) {
			t.Errorf("a kernel without them has project quotas: %v", err)
		}
		return
	}
	top, err := os.Open(at)
	must(t, err)
	defer top.Close()
	must(t, Available(top))
	must(t, os.Mkdir(at+"/a", 0o755))
	a, err := os.Open(at + "/a")
	must(t, err)
	defer a.Close()
	id, err := Free(top, firstID)
	must(t, err)
	if p, err := Project(a); p != 0 || err != nil {
		t.Fatalf("%d %v", p, err)
	}
	must(t, Assign(a, id))
	if p, err := Project(a); p != id || err != nil {
		t.Fatalf("%d %v", p, err)
	}
	must(t, Limit(top, id, 1<<20))
	// A process with CAP_SYS_RESOURCE, as this one, may go beyond: a gofer has none.
	must(t, os.Mkdir(at+"/a/deep", 0o755))
	must(t, os.WriteFile(at+"/a/deep/file", make([]byte, 512<<10), 0o644))
	u, err := Get(top, id)
	must(t, err)
	if u.Bytes < 512<<10 || u.Bytes > 600<<10 || u.Files != 3 || u.Size != 1<<20 || !u.Limits(1<<20) || u.Limits(2<<20) {
		t.Errorf("%+v", u)
	}
	if err := unprivileged(t, func() error { return os.WriteFile(at+"/a/deep/more", make([]byte, 1<<20), 0o644) }); !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("beyond the limit: %v", err)
	}
	must(t, Limit(top, id, 4<<20))
	must(t, unprivileged(t, func() error { return os.WriteFile(at+"/a/deep/more", make([]byte, 1<<20), 0o644) }))
	must(t, Limit(top, id, 128<<10))
	if err := unprivileged(t, func() error { return os.WriteFile(at+"/a/other", make([]byte, 8<<10), 0o644) }); err == nil {
		t.Error("it may hold less than it has, and takes more")
	}
	// Its project is not handed out, nor one that only has a limit.
	must(t, Limit(top, id+1, 1<<20))
	if next, err := Free(top, id); next != id+2 || err != nil {
		t.Errorf("%d %v", next, err)
	}
	must(t, Limit(top, id, 0))
	if u, err := Get(top, id); u.Size != 0 || u.MostFiles != 0 || err != nil {
		t.Errorf("%+v %v", u, err)
	}
}

// unprivileged does something without the capability that quotas do not hold for.
func unprivileged(t *testing.T, do func() error) error {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine
		var data [2]unix.CapUserData
		err := unix.Capget(&hdr, &data[0])
		data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		if err == nil {
			err = unix.Capset(&hdr, &data[0])
		}
		if err == nil {
			err = do()
		}
		result <- err
	}()
	return <-result
}
