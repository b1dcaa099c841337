// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// A namespace with a name outlives who made it, and is gone with its name, which can be made
// again and removed twice.
func TestPin(t *testing.T) {
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	dir := filepath.Join(t.TempDir(), "netns")
	path := filepath.Join(dir, "a")
	t.Cleanup(func() {
		_ = unix.Unmount(path, unix.MNT_DETACH)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
	var first uint64
	for range 2 {
		if err := Pin(path); err != nil {
			t.Fatal(err)
		}
		n, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		own, err := n.IsOwn()
		ino, ierr := n.Inode()
		n.Close()
		if err != nil || ierr != nil || own || ino == 0 || ino == first {
			t.Errorf("own %v, inode %d, before %d: %v %v", own, ino, first, err, ierr)
		}
		first = ino
		for range 2 {
			if err := Unpin(path); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is left: %v", err)
		}
	}
	// A crash has left the file alone, or two mounts on it.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Pin(path), Pin(path), Unpin(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	// The directory was made a mount once.
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	mounts := 0
	for line := range strings.Lines(string(b)) {
		var id, parent int
		var dev, root, at string
		if _, err := fmt.Sscan(line, &id, &parent, &dev, &root, &at); err == nil && at == dir {
			mounts++
		}
	}
	if mounts != 1 {
		t.Errorf("%d mounts at %s", mounts, dir)
	}
}
