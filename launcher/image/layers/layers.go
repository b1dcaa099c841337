// SPDX-License-Identifier: Apache-2.0

// Package layers merges the layers of an image into one tree.
//
// A layer is a tar whose entries come from somebody who is not trusted. They become
// nodes in memory and content in one file: no entry is ever a file of the host's, so
// that an absolute name, "..", a symbolic link or a device can reach nothing there.
// What would be refused by docker is refused here too, because such a layer is an
// attack or a broken tool.
package layers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/image/compression"
	"sandboxctl.dev/launcher/image/erofs"
)

// Errors of Apply. They are wrapped in what says which entry it is.
var (
	// ErrInvalid says that a layer can't be merged.
	ErrInvalid = errors.New("the layer is not valid")
	// ErrLimit says that an image is larger than what is allowed.
	ErrLimit = compression.ErrLimit
)

// Limits bound what an image may take.
type Limits struct {
	// Entries is how many entries the layers may have together: each takes memory.
	Entries int
	// Bytes is how long the files of all layers may be together.
	Bytes int64
	// Text is how long all names and targets of links may be together: they are in
	// memory while an image is merged.
	Text int64
}

// DefaultLimits are for images of any use. A million entries take about 450 MiB of
// memory while they are merged.
var DefaultLimits = Limits{Entries: 1 << 20, Bytes: 256 << 30, Text: 128 << 20}

// maxPath is the longest path, as in Linux.
const maxPath = 4096

// Dropped counts what layers have and an image has not.
type Dropped struct {
	// Devices are device files. gVisor opens no device of an image, and takes a
	// character device for the mark of a removed file.
	Devices int
	// Xattrs are files with extended attributes: gVisor can't read them in EROFS.
	Xattrs int
	// Capabilities are those of them that were file capabilities.
	Capabilities int
}

// Merger merges layers, the lowest first.
type Merger struct {
	w      *erofs.Writer
	limits Limits
	root   erofs.Entry
	// layer counts from 1 on. Entries have the number of the last layer that names
	// them or something below them.
	layer   uint32
	entries int
	bytes   int64
	text    int64
	// swept are directories in which nothing of lower layers is left.
	swept map[*erofs.Node]bool
	// looks counts the entries that marks have had looked at.
	looks   int
	dropped Dropped
}

// New returns a merger that appends the content of files to a writer.
func New(w *erofs.Writer, limits Limits) *Merger {
	return &Merger{w: w, limits: limits, root: implied(0)}
}

// Root is the tree.
func (m *Merger) Root() *erofs.Node { return m.root.Node }

// Dropped is what the tree lacks.
func (m *Merger) Dropped() Dropped { return m.dropped }

// Bytes is the length of the files that have been read, also of those that a later
// layer has removed.
func (m *Merger) Bytes() int64 { return m.bytes }

// implied is a directory that layers have files in, but do not describe.
func implied(mark uint32) erofs.Entry {
	return erofs.Entry{Node: &erofs.Node{Mode: unix.S_IFDIR | 0o755, Children: map[string]erofs.Entry{}}, Mark: mark}
}

// Apply adds a layer to the tree.
func (m *Merger) Apply(ctx context.Context, layer io.Reader) error {
	m.layer++
	m.swept = map[*erofs.Node]bool{}
	t := tar.NewReader(layer)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, tar.ErrHeader):
			return fmt.Errorf("%w: %w after entry %d", ErrInvalid, err, m.entries)
		case errors.Is(err, tar.ErrInsecurePath):
			// The name is checked below.
		case errors.Is(err, io.ErrUnexpectedEOF) && m.entries == 0:
			return fmt.Errorf("%w: it is no tar, or ends in its first entry", ErrInvalid)
		case err != nil:
			return fmt.Errorf("read entry %d: %w", m.entries+1, err)
		}
		if m.entries++; m.entries > m.limits.Entries {
			return fmt.Errorf("%w: more than %d entries", ErrLimit, m.limits.Entries)
		}
		// A name of 4096 bytes or a target takes a few in a compressed layer.
		if m.text += int64(len(path.Base(h.Name)) + len(h.Linkname)); m.text > m.limits.Text {
			return fmt.Errorf("%w: more than %d MiB of names and links", ErrLimit, m.limits.Text>>20)
		}
		if err := m.add(h, t); err != nil {
			return fmt.Errorf("entry %q: %w", shorten(h.Name), err)
		}
	}
}

// shorten bounds what is shown of a name.
func shorten(name string) string {
	const most = 200
	if len(name) > most {
		return name[:most] + "…"
	}
	return name
}

// add adds an entry of a layer.
func (m *Merger) add(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	dir, base := path.Split(name)
	if strings.HasPrefix(base, whiteout) {
		return m.whiteout(dir, base)
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		// What a lower layer has there is gone all the same.
		m.dropped.Devices++
		return m.remove(dir, base)
	}
	if h.Typeflag == tar.TypeLink {
		return m.link(h, dir, base)
	}
	n, err := m.node(h, content)
	if err != nil {
		return err
	}
	if name == "" {
		if !n.IsDir() {
			return fmt.Errorf("%w: the root is not a directory", ErrInvalid)
		}
		describeAgain(m.root.Node, n)
		return nil
	}
	parent, err := m.parent(dir)
	if err != nil {
		return err
	}
	if old, ok := parent.Children[base]; ok && old.IsDir() && n.IsDir() {
		describeAgain(old.Node, n)
		n = old.Node
	}
	parent.Children[base] = erofs.Entry{Node: n, Mark: m.layer}
	return nil
}

// describeAgain gives a directory another description. It stays the same node: what is
// known about it stays true.
func describeAgain(dir, n *erofs.Node) {
	n.Children = dir.Children
	*dir = *n
}

// node makes the node of an entry, and reads its content.
func (m *Merger) node(h *tar.Header, content io.Reader) (*erofs.Node, error) {
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) > 1<<32-1 || int64(h.Gid) > 1<<32-1 {
		return nil, fmt.Errorf("%w: owner %d:%d", ErrInvalid, h.Uid, h.Gid)
	}
	n := &erofs.Node{Mode: uint16(h.Mode & 0o7777), UID: uint32(h.Uid), GID: uint32(h.Gid), Seconds: h.ModTime.Unix(), Nanos: uint32(h.ModTime.Nanosecond())}
	m.countXattrs(h)
	switch h.Typeflag {
	case tar.TypeDir:
		n.Mode |= unix.S_IFDIR
		n.Children = map[string]erofs.Entry{}
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > erofs.MaxTarget || strings.ContainsRune(h.Linkname, 0) {
			return nil, fmt.Errorf("%w: a symbolic link to %q", ErrInvalid, shorten(h.Linkname))
		}
		n.Mode = unix.S_IFLNK | 0o777
		n.Target = h.Linkname
	case tar.TypeFifo:
		n.Mode |= unix.S_IFIFO
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		n.Mode |= unix.S_IFREG
		if h.Size < 0 || h.Size > m.limits.Bytes-m.bytes {
			return nil, fmt.Errorf("%w: more than %d MiB of files", ErrLimit, m.limits.Bytes>>20)
		}
		m.bytes += h.Size
		c, err := m.w.Append(content, h.Size)
		if err != nil {
			return nil, err
		}
		n.Content = c
	default:
		return nil, fmt.Errorf("%w: unknown type %q", ErrInvalid, h.Typeflag)
	}
	return n, nil
}

// countXattrs counts what is dropped of an entry.
func (m *Merger) countXattrs(h *tar.Header) {
	found := false
	for k := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok {
			name, ok = strings.CutPrefix(k, "LIBARCHIVE.xattr.")
		}
		found = found || ok
		if name == "security.capability" {
			m.dropped.Capabilities++
		}
	}
	if found {
		m.dropped.Xattrs++
	}
}

// link adds a hard link, also to a file of a lower layer.
func (m *Merger) link(h *tar.Header, dir, base string) error {
	target, err := clean(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link: %w", err)
	}
	tdir, tbase := path.Split(target)
	from, err := m.lookup(tdir)
	if err != nil {
		return err
	}
	var old erofs.Entry
	if from != nil {
		old = from.Children[tbase]
	}
	switch {
	case old.Node == nil:
		return fmt.Errorf("%w: a hard link to %q, which is not there", ErrInvalid, shorten(h.Linkname))
	case old.IsDir() || base == "":
		return fmt.Errorf("%w: a hard link to the directory %q", ErrInvalid, shorten(h.Linkname))
	}
	parent, err := m.parent(dir)
	if err != nil {
		return err
	}
	parent.Children[base] = erofs.Entry{Node: old.Node, Mark: m.layer}
	return nil
}
