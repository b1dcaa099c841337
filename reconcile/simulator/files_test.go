// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/fsys"
)

// statePath is where the state directory is.
const statePath = "/state"

// dir is a directory that a program has open: fsys.Dir of the host's disk. Each
// call is a step of the thread that is running.
type dir struct {
	h    *host
	n    *inode
	name string // the last part of its path
	lock *lock
}

// lock is a lock (flock) that a program has.
type lock struct{ p *program }

func (l *lock) held() bool { return l != nil && !l.p.dead }

func (d *dir) at(name string) *inode {
	n := d.n
	for part := range strings.SplitSeq(name, "/") {
		if n == nil {
			return nil
		}
		n = n.names[part]
	}
	return n
}

// lookup opens what a name means.
func (d *dir) lookup(what, name string) (n *inode, err error) {
	err = d.h.call(d.h.running(), reads, what+shown(name), func(bool) error {
		if n = d.at(name); n == nil {
			return unix.ENOENT
		}
		return nil
	})
	return n, err
}

// shown is a name without what is chosen by chance in it.
func shown(name string) string {
	if strings.HasPrefix(name, atomicfile.TempPrefix) {
		return "a temporary file"
	}
	if first, uid, ok := strings.Cut(name, "."); ok && len(uid) == 32 {
		return first + " in the trash"
	}
	return name
}

// Open implements fsys.Dir.
func (d *dir) Open(name string) (fsys.File, error) {
	n, err := d.lookup("open ", name)
	switch {
	case err != nil:
		return nil, err
	case n.isDir:
		return nil, unix.EISDIR
	}
	b := n.data
	if name == actual.ExitFile && d.h.is("exit-of-any-attempt") {
		b = d.claimExit(b)
	}
	return &file{h: d.h, n: n, name: name, rest: b}, nil
}

// claimExit makes an exit record that of the attempt on record.
func (d *dir) claimExit(b []byte) []byte {
	var x actual.ExitRecord
	f := d.n.names[actual.RecordFile]
	if f == nil || json.Unmarshal(b, &x) != nil {
		return b
	}
	if rec, err := f.record(); err == nil {
		x.UID, x.Attempt = rec.UID, rec.Attempt
		if now, err := actual.EncodeExit(x); err == nil {
			return now
		}
	}
	return b
}

// Create implements fsys.Dir.
func (d *dir) Create(name string, _ fs.FileMode) (fsys.File, error) {
	n, err := d.h.create(d.h.running(), d.n, name, true, false)
	if err != nil {
		return nil, err
	}
	return &file{h: d.h, n: n, name: name}, nil
}

// OpenDir implements fsys.Dir.
func (d *dir) OpenDir(name string) (fsys.Dir, error) {
	n, err := d.lookup("open ", name)
	switch {
	case err != nil:
		return nil, err
	case !n.isDir:
		return nil, unix.ENOTDIR
	}
	return &dir{h: d.h, n: n, name: name}, nil
}

// Mkdir implements fsys.Dir.
func (d *dir) Mkdir(name string, _ fs.FileMode) error {
	return d.h.mkdir(d.h.running(), d.n, name)
}

// Rename implements fsys.Dir.
func (d *dir) Rename(name string, to fsys.Dir, as string, _ uint) error {
	t, ok := to.(*dir)
	if !ok {
		return unix.EXDEV
	}
	if old := t.n.names[as]; old != nil && d.h.is("write-in-place") {
		return d.writeInPlace(name, old)
	}
	return d.h.rename(d.h.running(), d.n, name, t.n, as)
}

// writeInPlace is a rename that is none.
func (d *dir) writeInPlace(name string, old *inode) error {
	t := d.h.running()
	if _, err := d.h.create(t, d.n, d.nameOf(old), false, true); err != nil {
		return err
	}
	if err := d.h.write(t, old, d.n.names[name].data); err != nil {
		return err
	}
	return errors.Join(d.h.fsync(t, old, d.nameOf(old)), d.h.unlink(t, d.n, name))
}

func (d *dir) nameOf(n *inode) string {
	for name, c := range d.n.names {
		if c == n {
			return name
		}
	}
	return ""
}

// Unlink implements fsys.Dir.
func (d *dir) Unlink(name string) error {
	if n := d.n.names[name]; n != nil && n.isDir {
		return unix.EISDIR
	}
	return d.h.unlink(d.h.running(), d.n, name)
}

// Names implements fsys.Dir.
func (d *dir) Names(int) (names []string, err error) {
	err = d.h.call(d.h.running(), reads, "list "+d.name, func(bool) error {
		if d.n.gone {
			return unix.ENOENT
		}
		// Not by name: some are chosen by chance.
		names = slices.SortedFunc(maps.Keys(d.n.names), func(a, b string) int { return cmp.Compare(d.n.names[a].id, d.n.names[b].id) })
		return nil
	})
	return names, err
}

// Stat implements fsys.Dir.
func (d *dir) Stat(name string) (unix.Stat_t, error) {
	n, err := d.lookup("stat ", name)
	if err != nil {
		return unix.Stat_t{}, err
	}
	return n.stat(), nil
}

// Self implements fsys.Dir.
func (d *dir) Self() (unix.Stat_t, error) { return d.n.stat(), nil }

// StatPath implements fsys.Dir.
func (d *dir) StatPath(path string) (unix.Stat_t, error) {
	if path != statePath {
		return unix.Stat_t{}, unix.ENOENT
	}
	return d.h.state.stat(), nil
}

func (n *inode) stat() unix.Stat_t {
	st := unix.Stat_t{Ino: n.id, Size: int64(len(n.data)), Mode: unix.S_IFREG | 0o600, Nlink: 1, Ctim: unix.Timespec{Sec: int64(n.version)}, Uid: uint32(euid)}
	if n.isDir {
		st.Mode = unix.S_IFDIR | 0o700
	}
	return st
}

// Statfs implements fsys.Dir.
func (d *dir) Statfs() (unix.Statfs_t, error) {
	st := unix.Statfs_t{Bsize: 4096, Blocks: 1 << 18, Bavail: 1 << 17}
	if d.h.disk.full && d.h.disk.told {
		st.Bavail = 0
	}
	return st, nil
}

// Sync implements fsys.Dir.
func (d *dir) Sync() error {
	t := d.h.running()
	top := d.n == d.h.state || d.name == actual.SandboxesDir || d.name == actual.TrashDir
	switch {
	case d.h.is("no-dir-fsync") && !top,
		d.h.is("no-fsync-of-claim") && d.name == actual.SandboxesDir && strings.Contains(t.name, " create "),
		d.h.is("no-fsync-of-state") && d.n == d.h.state && strings.HasSuffix(t.name, " start"),
		d.h.is("drop-unsynced") && t.loop && d.n != d.h.state && d.name != "requests":
		return nil
	}
	return d.h.fsync(t, d.n, "directory "+d.name)
}

// Lock implements fsys.Dir.
func (d *dir) Lock(patience time.Duration) error {
	if d.h.is("requests-unlocked") {
		return nil
	}
	t := d.h.running()
	free := func() bool { return !d.n.lock.held() }
	if patience > 0 && !free() {
		d.h.park(t, free, time.Now().Add(patience))
	}
	return d.h.call(t, harmless, "lock "+d.name, func(bool) error {
		if !free() {
			return unix.EWOULDBLOCK
		}
		d.lock = &lock{t.p}
		d.n.lock = d.lock
		return nil
	})
}

// Close implements fsys.Dir.
func (d *dir) Close() error {
	if d.lock != nil && d.n.lock == d.lock {
		d.n.lock = nil
	}
	return nil
}

// Remover implements fsys.Dir.
func (d *dir) Remover(int) fsys.Remover { return d }

// Remove implements fsys.Remover.
func (d *dir) Remove(name string) (bool, error) {
	n, err := d.lookup("open ", name)
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if n.isDir {
		below := &dir{h: d.h, n: n, name: shown(name)}
		names, err := below.Names(0)
		if err != nil {
			return false, err
		}
		var errs []error
		for _, c := range names {
			_, err := below.Remove(c)
			errs = append(errs, err)
		}
		if err := errors.Join(errs...); err != nil {
			return false, err
		}
	}
	err = d.h.unlink(d.h.running(), d.n, name)
	if missing(err) {
		err = nil
	}
	return false, err
}

// file is a file that a program has open.
type file struct {
	h    *host
	n    *inode
	name string
	rest []byte // what is to be read
	lock *lock
}

// Read implements io.Reader.
func (f *file) Read(b []byte) (int, error) {
	if len(f.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// Write implements io.Writer.
func (f *file) Write(b []byte) (int, error) {
	if err := f.h.write(f.h.running(), f.n, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Stat implements fsys.File.
func (f *file) Stat() (unix.Stat_t, error) {
	st := f.n.stat()
	st.Size = int64(len(f.rest))
	return st, nil
}

// Sync implements fsys.File.
func (f *file) Sync() error {
	if f.h.is("no-file-fsync") {
		return nil
	}
	return f.h.fsync(f.h.running(), f.n, shown(f.name))
}

// Lock implements fsys.File.
func (f *file) Lock() error {
	if f.n.lock.held() {
		return unix.EWOULDBLOCK
	}
	f.lock = &lock{f.h.running().p}
	f.n.lock = f.lock
	return nil
}

// Close implements fsys.File.
func (f *file) Close() error {
	if f.lock != nil && f.n.lock == f.lock {
		f.n.lock = nil
	}
	return nil
}
