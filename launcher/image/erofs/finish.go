// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Sizes and numbers of the format.
const (
	superOffset = 1024
	superSize   = 128
	magic       = 0xe0f5e1e2
	// checksummed is the feature that the superblock has a checksum.
	checksummed = 1
	inodeSize   = 64
	slotSize    = 32 // what inode numbers count
	direntSize  = 12
	// firstInode keeps 0 from being an inode number: readdir of some libraries takes
	// entries with it for deleted ones.
	firstInode = inodeSize

	plain    = 0 // content in blocks
	inline   = 2 // content behind the inode
	extended = 1 // inodes of 64 bytes
)

// place is where a node is written.
type place struct {
	nid    uint64 // inode number: 0 if it has no place yet
	parent uint64 // a directory's
	links  uint32
	serial uint32
	// size and block are of what a directory or a link consists of; inlined says
	// that it is behind the inode.
	size    int64
	block   uint32
	inlined bool
}

// Finish writes the tree below root and ends the file, which is not synced. The same
// tree and content give the same bytes. It returns how many inodes there are.
func (w *Writer) Finish(root *Node, id [16]byte) (inodes int, err error) {
	if !root.IsDir() {
		return 0, fmt.Errorf("the root of the file system is no directory: mode %o", root.Mode)
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	t := tree{w: w, end: firstInode}
	contents := w.next
	if err := t.lay(root, nil); err != nil {
		return 0, err
	}
	if err := w.punch(t.nodes, contents); err != nil {
		return 0, err
	}
	t.meta = w.next
	if (t.meta+t.end)/BlockSize >= maxBlocks {
		return 0, ErrTooLarge
	}
	if err := t.write(); err != nil {
		return 0, err
	}
	total := roundUp(t.meta+t.end, BlockSize)
	if err := w.out.Truncate(total); err != nil {
		return 0, err
	}
	_, err = w.out.WriteAt(superblock(len(t.nodes), root.place.nid, t.meta, total, id), 0)
	return len(t.nodes), err
}

// tree lays out inodes. They come in the order of a walk, so that a directory is near
// to what is in it.
type tree struct {
	w     *Writer
	nodes []*Node
	// end is that of the inodes, from the start of the metadata.
	end, meta int64
}

// lay gives places to a node and to what is below it. It recurses as deep as the
// longest path: the caller bounds that.
func (t *tree) lay(n *Node, parent *Node) error {
	if n.place.nid != 0 {
		n.place.links++
		return nil
	}
	t.nodes = append(t.nodes, n)
	n.place = place{links: 1, serial: uint32(len(t.nodes))}
	switch n.Type() {
	case unix.S_IFDIR:
		n.place.size = direntsSize(n)
	case unix.S_IFLNK:
		n.place.size = int64(len(n.Target))
	default:
		t.put(n, 0)
		return nil
	}
	// Behind the inode, and not across the end of a block.
	n.place.inlined = n.place.size > 0 && n.place.size <= BlockSize-inodeSize
	if n.place.inlined {
		t.put(n, n.place.size)
	} else {
		t.put(n, 0)
		n.place.block = uint32(t.w.next / BlockSize)
		t.w.next += roundUp(n.place.size, BlockSize)
	}
	if !n.IsDir() {
		return nil
	}
	n.place.links, n.place.parent = 2, n.place.nid
	if parent != nil {
		n.place.parent = parent.place.nid
	}
	for _, name := range slices.Sorted(maps.Keys(n.Children)) {
		c := n.Children[name]
		if c.IsDir() {
			if c.place.nid != 0 {
				return fmt.Errorf("the directory %q has two names", name)
			}
			n.place.links++
		}
		if err := t.lay(c.Node, n); err != nil {
			return err
		}
	}
	return nil
}

// put gives a node its number.
func (t *tree) put(n *Node, trailing int64) {
	if room := BlockSize - t.end%BlockSize; inodeSize+trailing > room {
		t.end += room
	}
	n.place.nid = uint64(t.end / slotSize)
	t.end += roundUp(inodeSize+trailing, inodeSize)
}

// write writes inodes, directories and links.
func (t *tree) write() error {
	// Inodes are gathered: most are smaller than what is worth a call.
	var buf bytes.Buffer
	start := int64(0)
	flush := func() error {
		_, err := t.w.out.WriteAt(buf.Bytes(), t.meta+start)
		start += int64(buf.Len())
		buf.Reset()
		return err
	}
	for _, n := range t.nodes {
		at := int64(n.place.nid) * slotSize
		buf.Write(make([]byte, at-start-int64(buf.Len())))
		buf.Write(n.inode())
		data := n.data()
		switch {
		case n.place.inlined:
			buf.Write(data)
		case len(data) > 0:
			if _, err := t.w.out.WriteAt(data, int64(n.place.block)*BlockSize); err != nil {
				return err
			}
		}
		if buf.Len() >= bufSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// data is what a directory or a link consists of.
func (n *Node) data() []byte {
	switch n.Type() {
	case unix.S_IFDIR:
		return n.dirents()
	case unix.S_IFLNK:
		return []byte(n.Target)
	}
	return nil
}

func (n *Node) inode() []byte {
	size, block, format := n.place.size, n.place.block, extended|plain<<1
	if n.place.inlined {
		format = extended | inline<<1
	}
	if n.Type() == unix.S_IFREG {
		size, block = n.Content.Size, n.Content.block
	}
	le := binary.LittleEndian
	b := make([]byte, inodeSize)
	le.PutUint16(b[0:], uint16(format))
	le.PutUint16(b[4:], n.Mode)
	le.PutUint64(b[8:], uint64(size))
	le.PutUint32(b[16:], block)
	le.PutUint32(b[20:], n.place.serial)
	le.PutUint32(b[24:], n.UID)
	le.PutUint32(b[28:], n.GID)
	le.PutUint64(b[32:], uint64(n.Seconds))
	le.PutUint32(b[40:], n.Nanos)
	le.PutUint32(b[44:], n.place.links)
	return b
}

func superblock(inodes int, root uint64, meta, total int64, id [16]byte) []byte {
	le := binary.LittleEndian
	block := make([]byte, BlockSize)
	b := block[superOffset:]
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[8:], checksummed)
	b[12] = 12 // the logarithm of BlockSize
	le.PutUint16(b[14:], uint16(root))
	le.PutUint64(b[16:], uint64(inodes))
	le.PutUint32(b[36:], uint32(total/BlockSize))
	le.PutUint32(b[40:], uint32(meta/BlockSize))
	copy(b[48:64], id[:])
	le.PutUint32(b[4:], ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return block
}
