// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A file without a name can be read and written, nobody finds it, and its room is free
// again when it is closed. Where the disk has none, nothing is left.
func TestUnnamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	f, err := Unnamed(d, 0o600)
	must(t, err)
	defer f.Close()
	var st unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &st))
	if st.Nlink != 0 || st.Mode != unix.S_IFREG|0o600 {
		t.Errorf("%d names, mode %o", st.Nlink, st.Mode)
	}
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("children inherit it: %v", err)
	}
	if _, err := f.WriteAt([]byte("x"), 5); err != nil {
		t.Error(err)
	}
	b := make([]byte, 6)
	if _, err := f.ReadAt(b, 0); err != nil || string(b[5]) != "x" {
		t.Errorf("%q %v", b, err)
	}
	other, err := Unnamed(d, 0o600)
	must(t, err)
	defer other.Close()
	if a, err := other.Stat(); err != nil || a.Size() != 0 {
		t.Errorf("two are one file: %v %v", a, err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	hidden, herr := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || herr != nil || len(names)+len(hidden) != 0 {
		t.Errorf("left: %v %v", names, hidden)
	}
	gone := filepath.Join(t.TempDir(), "gone")
	must(t, os.Mkdir(gone, 0o700))
	g, err := os.Open(gone)
	must(t, err)
	defer g.Close()
	must(t, os.Remove(gone))
	if f, err := Unnamed(g, 0o600); err == nil || !strings.Contains(err.Error(), "create temporary file") {
		t.Errorf("in a directory that was removed: %v %v", f, err)
	}
}
