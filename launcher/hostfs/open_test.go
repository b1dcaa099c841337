// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/setup"
)

// What may not be shared is refused before anything is made.
func TestDetachRefuses(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "mounting needs root")
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/real", 0o755), os.Symlink("real", dir+"/link"), unix.Mkfifo(dir+"/fifo", 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir + "/link": "symbolic link", dir + "/link/x": "symbolic link", dir + "/none": "no such file", dir + "/fifo": "expected a directory or a regular file",
		"/proc": "never shared", "/proc/self/root": "symbolic link", "/sys/kernel": "never shared", "/dev/null": "expected a directory or a regular file",
	} {
		tree, err := detach(setup.Source{Path: path, ReadOnly: true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", path, err, want)
		}
		if tree != nil {
			tree.mount.Close()
		}
	}
	tree, err := detach(setup.Source{Path: dir + "/real", ReadOnly: true})
	if err != nil || !tree.isDir {
		t.Fatal(err)
	}
	f := tree.mount
	defer f.Close()
	if err := unix.Mkdirat(int(f.Fd()), "x", 0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("a read-only mount is written: %v", err)
	}
	// ".." of a detached mount is itself.
	up, err := unix.Openat(int(f.Fd()), "..", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(up)
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &a), unix.Fstat(up, &b)); err != nil || a.Ino != b.Ino {
		t.Errorf("\"..\" leads out of a detached mount: %v", err)
	}
}
