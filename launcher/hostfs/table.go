// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/gofer"
)

// Table is the list of mounts of this process at one moment.
type Table struct {
	mounts []*mountinfo.Info
	byID   map[int]*mountinfo.Info
}

// ReadTable reads the list.
func ReadTable() (*Table, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	return tableFrom(f)
}

func tableFrom(list io.Reader) (*Table, error) {
	mounts, err := mountinfo.GetMountsFromReader(list, nil)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	t := &Table{mounts: mounts, byID: make(map[int]*mountinfo.Info, len(mounts))}
	for _, m := range mounts {
		t.byID[m.ID] = m
	}
	return t, nil
}

// Spot is where an open file or directory is: in which mount, and at which path.
type Spot struct {
	Mount int
	Path  string
	// rest is what does not exist (yet) below Path.
	rest string
}

// SpotOf looks at an open file or directory.
func SpotOf(f *os.File) (Spot, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return Spot{}, fmt.Errorf("find the mount of %s: %w", f.Name(), err)
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return Spot{}, fmt.Errorf("find the mount of %s: it needs Linux 5.8 or later", f.Name())
	}
	p, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return Spot{}, fmt.Errorf("find the path of %s: %w", f.Name(), err)
	}
	if !filepath.IsAbs(p) {
		return Spot{}, fmt.Errorf("find the path of %s: %q is outside of this mount namespace", f.Name(), p)
	}
	return Spot{Mount: int(st.Mnt_id), Path: p}, nil
}

// SpotAt looks at a path. A link at its end is not followed: the link is what is
// there. What does not exist is where it would be made.
func SpotAt(p string) (Spot, error) {
	rest := ""
	for at := path.Clean(p); ; at = path.Dir(at) {
		f, err := os.OpenFile(at, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)) && at != "/" {
			rest = path.Join(path.Base(at), rest)
			continue
		}
		if err != nil {
			return Spot{}, fmt.Errorf("look at %s: %w", p, err)
		}
		s, err := SpotOf(f)
		f.Close()
		s.rest = rest
		return s, err
	}
}

// location is a directory or file inside a filesystem.
type location struct{ device, path string }

func (t *Table) mountOf(s Spot) (*mountinfo.Info, error) {
	m := t.byID[s.Mount]
	if m == nil || !gofer.Within(s.Path, m.Mountpoint) {
		return nil, fmt.Errorf("find the mount of %s: it is not in the list of mounts; was it mounted or unmounted this moment?", s.Path)
	}
	return m, nil
}

// inside is the location of a path below the mount point of a mount.
func inside(m *mountinfo.Info, p string) location {
	return location{gofer.Device(m), path.Join(m.Root, strings.TrimPrefix(p, strings.TrimSuffix(m.Mountpoint, "/")))}
}

// below are the mounts at a path and anywhere below it.
func (t *Table) below(p string) []*mountinfo.Info {
	return slices.DeleteFunc(slices.Clone(t.mounts), func(m *mountinfo.Info) bool { return !gofer.Within(m.Mountpoint, p) })
}
