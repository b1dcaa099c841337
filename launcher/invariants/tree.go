// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/volume"
)

type inode struct{ dev, ino uint64 }

// tree is what is in a state directory.
type tree struct {
	path    string // as the kernel prints it in the links of descriptors
	info    fs.FileInfo
	temps   []string
	trash   []string
	foreign []string        // in the directory of kept logs, and none of them
	sockets map[string]bool // sandboxes with a control socket
	files   map[inode]file
	root    *os.Root
}

// file is one in the directory of a sandbox.
type file struct{ path, sandbox string }

// How much is looked at: a state directory is sandboxes/NAME/logs/ATTEMPT/FILE and
// deleted/ENTRY/ATTEMPT/FILE, and
// what is in the directory of an attempt a gofer has put there, which can be
// anything.
const (
	maxDepth   = 4
	maxNames   = 100_000 // in a directory of ours
	maxOfGofer = 256     // in one of a sandbox
)

// readTree walks a state directory. What vanishes meanwhile was never there.
func readTree(root *os.Root) (*tree, error) {
	t := &tree{sockets: map[string]bool{}, files: map[inode]file{}, root: root}
	dir, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	defer dir.Close()
	if t.info, err = dir.Stat(); err != nil {
		return nil, fmt.Errorf("look at state directory: %w", err)
	}
	if t.path, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(dir.Fd()))); err != nil {
		return nil, fmt.Errorf("find path of state directory: %w", err)
	}
	if err := t.walk(dir, "", 0); err != nil {
		return nil, fmt.Errorf("walk state directory: %w", err)
	}
	return t, nil
}

func (t *tree) walk(dir *os.File, at string, depth int) error {
	limit := maxNames
	if depth > 1 {
		limit = maxOfGofer
	}
	names, err := untrusted.List(int(dir.Fd()), limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		var st unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		p := path.Join(at, n)
		t.take(p, &st)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR || depth >= maxDepth-1 || isVolumeData(p) {
			continue
		}
		sub, err := untrusted.OpenDir(int(dir.Fd()), n)
		if err != nil {
			continue // gone, or another filesystem, which is told as a mount
		}
		err = t.walk(sub, p, depth+1)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// isVolumeData says whether a path is what a named volume holds: whatever its sandboxes have
// put there is theirs.
func isVolumeData(p string) bool {
	return path.Base(p) == volume.DataDir && path.Dir(path.Dir(p)) == volume.Directory
}

func (t *tree) take(p string, st *unix.Stat_t) {
	if strings.HasPrefix(path.Base(p), atomicfile.TempPrefix) {
		t.temps = append(t.temps, p)
	}
	if path.Dir(p) == actual.TrashDir {
		t.trash = append(t.trash, path.Base(p))
	}
	if path.Dir(p) == actual.DeletedDir {
		if _, ok := actual.ParseDeleted(path.Base(p)); !ok || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			t.foreign = append(t.foreign, p)
		}
	}
	name := sandboxOf(p)
	if name == "" {
		return
	}
	t.files[inode{st.Dev, st.Ino}] = file{p, name}
	if path.Base(p) == sentry.ControlSocket && path.Base(path.Dir(p)) == name {
		t.sockets[name] = true
	}
}

// sandboxOf is the sandbox whose directory a path relative to the state
// directory is in, "" if in none.
func sandboxOf(p string) string {
	parts := strings.Split(p, "/")
	if len(parts) < 2 {
		return ""
	}
	switch parts[0] {
	case actual.SandboxesDir:
		return parts[1]
	case actual.DeletedDir:
		if d, ok := actual.ParseDeleted(parts[1]); ok {
			return d.Name
		}
		return parts[1]
	case actual.TrashDir:
		// NAME.RANDOM; ids of containers may have dots.
		if i := strings.LastIndexByte(parts[1], '.'); i > 0 {
			return parts[1][:i]
		}
		return parts[1]
	}
	return ""
}

// trashed is the record of something in the trash, nil if it has none any more.
func trashed(store *actual.Store, name string) *actual.Record {
	root, err := store.Root()
	if err != nil {
		return nil
	}
	defer root.Close()
	dir, err := root.OpenFile(path.Join(actual.TrashDir, name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer dir.Close()
	f, err := untrusted.OpenRegular(int(dir.Fd()), actual.RecordFile)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, actual.MaxRecord+1))
	if err != nil {
		return nil
	}
	r, err := actual.DecodeRecord(b)
	if err != nil {
		return nil
	}
	return r
}
