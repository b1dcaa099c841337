// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
)

// inode is a file or directory. What the page cache holds and what is on disk
// are two things: only fsync makes them one.
type inode struct {
	id, version uint64
	isDir       bool

	data  []byte // in the page cache
	disk  []byte // on disk
	dirty bool   // data is not on disk yet, or not whole
	gone  bool   // a directory that was removed: nothing can be made in it

	lock      *lock             // flock
	names     map[string]*inode // in the page cache
	diskNames map[string]*inode // on disk

	// What DecodeRecord makes of data, for version decoded.
	decoded uint64
	rec     *actual.Record
	recErr  error
}

// dirOp is one change of names that the disk may not have yet: all of it is
// there after a power cut, or nothing.
type dirOp struct {
	changes []nameChange
	synced  bool
}

type nameChange struct {
	dir  *inode
	name string
	to   *inode // nil: the name is gone
}

// disk is the file system of the host.
type disk struct {
	next    uint64
	root    *inode
	pending []*dirOp
	full    bool // ENOSPC for whatever needs a block
	told    bool // that it is can be seen
}

func newDisk() *disk {
	d := &disk{}
	d.root = d.make(true)
	return d
}

func (d *disk) make(dir bool) *inode {
	d.next++
	n := &inode{id: d.next, version: 1, isDir: dir}
	if dir {
		n.names, n.diskNames = map[string]*inode{}, map[string]*inode{}
	}
	return n
}

func (d *disk) change(cs ...nameChange) {
	for _, c := range cs {
		if c.to == nil {
			delete(c.dir.names, c.name)
		} else {
			c.dir.names[c.name] = c.to
		}
	}
	d.pending = append(d.pending, &dirOp{changes: cs})
}

func (d *disk) mkdir(dir *inode, name string) error {
	switch {
	case dir.names[name] != nil:
		return unix.EEXIST
	case dir.gone:
		return unix.ENOENT
	case d.full:
		return unix.ENOSPC
	}
	d.change(nameChange{dir, name, d.make(true)})
	return nil
}

// create makes a file, or opens and with trunc empties the one that is there.
func (d *disk) create(dir *inode, name string, excl, trunc bool) (*inode, error) {
	if n := dir.names[name]; n != nil {
		if excl {
			return nil, unix.EEXIST
		}
		if trunc {
			n.data, n.dirty, n.version = nil, true, n.version+1
		}
		return n, nil
	}
	switch {
	case dir.gone:
		return nil, unix.ENOENT
	case d.full:
		return nil, unix.ENOSPC
	}
	n := d.make(false)
	d.change(nameChange{dir, name, n})
	return n, nil
}

// write appends; a full disk takes the first half of it.
func (d *disk) write(n *inode, b []byte, half bool) error {
	var err error
	if d.full {
		half, err = true, unix.ENOSPC
	}
	if half {
		b = b[:len(b)/2]
	}
	n.data = append(slices.Clip(n.data), b...)
	n.dirty, n.version = true, n.version+1
	return err
}

func (d *disk) rename(from *inode, old string, to *inode, name string) error {
	n, there := from.names[old], to.names[name]
	switch {
	case n == nil || to.gone:
		return unix.ENOENT
	case there == nil:
	case n == there:
		return nil
	case n.isDir && !there.isDir:
		return unix.ENOTDIR
	case !n.isDir && there.isDir:
		return unix.EISDIR
	case n.isDir && len(there.names) > 0:
		return unix.ENOTEMPTY
	case n.isDir:
		there.gone = true
	}
	d.change(nameChange{from, old, nil}, nameChange{to, name, n})
	return nil
}

func (d *disk) unlink(dir *inode, name string) error {
	n := dir.names[name]
	switch {
	case n == nil:
		return unix.ENOENT
	case n.isDir && len(n.names) > 0:
		return unix.ENOTEMPTY
	}
	d.change(nameChange{dir, name, nil})
	n.gone = n.isDir
	return nil
}

// fsync puts the content of a file, or the names of a directory, on disk.
func (d *disk) fsync(n *inode) {
	if !n.isDir {
		n.disk, n.dirty = n.data, false
		return
	}
	for _, op := range d.pending {
		if slices.ContainsFunc(op.changes, func(c nameChange) bool { return c.dir == n }) {
			op.apply()
		}
	}
	d.pending = slices.DeleteFunc(d.pending, func(op *dirOp) bool { return op.synced })
}

func (op *dirOp) apply() {
	for _, c := range op.changes {
		if c.to == nil {
			delete(c.dir.diskNames, c.name)
		} else {
			c.dir.diskNames[c.name] = c.to
		}
	}
	op.synced = true
}

// powerCut loses what was not synced. Of the changes of names any subset has
// reached the disk, in any order; of the content of a file the old, a part of
// the new, the new, or blocks that were never written.
func (d *disk) powerCut(rng *rand.Rand) (lost int) {
	for _, op := range d.pending {
		if rng.IntN(2) == 0 {
			op.apply()
		} else {
			lost++
		}
	}
	d.pending = nil
	seen := map[*inode]bool{}
	var walk func(n *inode)
	walk = func(n *inode) {
		if seen[n] {
			return
		}
		seen[n] = true
		if !n.isDir {
			if n.dirty {
				n.data = torn(rng, n.disk, n.data)
				n.disk, n.dirty, n.version = n.data, false, n.version+1
				lost++
			}
			return
		}
		n.names, n.gone = maps.Clone(n.diskNames), false
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			walk(n.names[name])
		}
	}
	walk(d.root)
	return lost
}

func torn(rng *rand.Rand, old, now []byte) []byte {
	switch rng.IntN(4) {
	case 0:
		return old
	case 1:
		return now[:rng.IntN(len(now)+1)]
	case 2:
		return make([]byte, len(now))
	}
	return now
}

// record is what a record file says, by the real decoder.
func (n *inode) record() (*actual.Record, error) {
	if n.decoded != n.version {
		n.rec, n.recErr = actual.DecodeRecord(n.data)
		n.decoded = n.version
	}
	return n.rec, n.recErr
}

// overwrite is what a fault or a person does to a file, at once and for good.
func (n *inode) overwrite(b []byte) {
	n.data = bytes.Clone(b)
	n.disk, n.dirty, n.version = n.data, false, n.version+1
}

func missing(err error) bool { return errors.Is(err, unix.ENOENT) }
