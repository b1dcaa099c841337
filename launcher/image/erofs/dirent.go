// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A directory consists of blocks. Each has its entries, and behind them their names.
// All names are sorted, also "." and "..": they are looked up by halving.

// names are those of a directory in their order.
func (n *Node) names() []string {
	names := slices.AppendSeq(make([]string, 0, len(n.Children)+2), maps.Keys(n.Children))
	names = append(names, ".", "..")
	slices.Sort(names)
	return names
}

// blocks divides names into those of each block.
func blocks(names []string) (out [][]string) {
	start, used := 0, 0
	for i, name := range names {
		if used+direntSize+len(name) > BlockSize {
			out, start, used = append(out, names[start:i]), i, 0
		}
		used += direntSize + len(name)
	}
	return append(out, names[start:])
}

// direntsSize is how long a directory is: the last block ends with its last name.
func direntsSize(n *Node) int64 {
	all := blocks(n.names())
	last := all[len(all)-1]
	return int64(len(all)-1)*BlockSize + int64(len(last)*direntSize+len(strings.Join(last, "")))
}

// dirents is the directory.
func (n *Node) dirents() []byte {
	out := make([]byte, n.place.size)
	for i, names := range blocks(n.names()) {
		b := out[i*BlockSize:]
		off := len(names) * direntSize
		for j, name := range names {
			nid, kind := n.entry(name)
			d := b[j*direntSize:]
			binary.LittleEndian.PutUint64(d, nid)
			binary.LittleEndian.PutUint16(d[8:], uint16(off))
			d[10] = kind
			off += copy(b[off:], name)
		}
	}
	return out
}

func (n *Node) entry(name string) (nid uint64, kind uint8) {
	switch name {
	case ".":
		return n.place.nid, kinds[unix.S_IFDIR]
	case "..":
		return n.place.parent, kinds[unix.S_IFDIR]
	}
	c := n.Children[name]
	return c.place.nid, kinds[c.Type()]
}

// kinds are the types of files in an entry of a directory.
var kinds = map[uint16]uint8{
	unix.S_IFREG: 1, unix.S_IFDIR: 2, unix.S_IFCHR: 3, unix.S_IFBLK: 4,
	unix.S_IFIFO: 5, unix.S_IFSOCK: 6, unix.S_IFLNK: 7,
}
