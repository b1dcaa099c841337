// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/image/erofs"
)

// Names in a layer that remove something of lower layers.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	// auxiliary files of a union file system of old times begin with it.
	auxiliary = ".wh..wh."
)

// maxLinks is how many symbolic links a path may lead through, as in Linux.
const maxLinks = 40

// clean checks a name and makes it relative to the root, "" for the root itself. A
// name that leads out of the root is refused: a tool that packs a tree makes none.
func clean(name string) (string, error) {
	if len(name) > maxPath || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: the name is longer than %d bytes or has a zero byte", ErrInvalid, maxPath)
	}
	c := path.Clean(strings.TrimLeft(name, "/"))
	if c == "." {
		return "", nil
	}
	for p := range strings.SplitSeq(c, "/") {
		if p == ".." {
			return "", fmt.Errorf("%w: the name leads out of the image", ErrInvalid)
		}
		if len(p) > erofs.MaxName {
			return "", fmt.Errorf("%w: a part of the name is longer than %d bytes", ErrInvalid, erofs.MaxName)
		}
	}
	return c, nil
}

// parent finds the directory dir, and makes it and what is missing above it.
//
// A directory of lower layers is entered. A symbolic link of this layer is followed,
// inside of the image. A link or file of a lower layer is replaced by a directory:
// that is what docker and podman do, which unpack each layer alone.
func (m *Merger) parent(dir string) (*erofs.Node, error) {
	return m.walk(dir, true)
}

// lookup finds the directory dir for a look at what it has, nil if there is none. It
// follows the links of all layers.
func (m *Merger) lookup(dir string) (*erofs.Node, error) { return m.walk(dir, false) }

func (m *Merger) walk(dir string, make bool) (*erofs.Node, error) {
	at := []*erofs.Node{m.root.Node} // the directories from the root on
	rest, links := dir, 0
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			at = at[:max(len(at)-1, 1)]
			continue
		}
		d := at[len(at)-1]
		e, ok := d.Children[name]
		switch {
		case ok && e.IsDir():
			e.Mark = m.mark(e, make)
		case ok && e.Type() == unix.S_IFLNK && (!make || e.Mark == m.layer):
			if links++; links > maxLinks {
				return nil, fmt.Errorf("%w: more than %d links in the name", ErrInvalid, maxLinks)
			}
			if path.IsAbs(e.Target) {
				at = at[:1]
			}
			rest = e.Target + "/" + rest
			continue
		case !make:
			return nil, nil
		case ok && e.Mark == m.layer:
			return nil, fmt.Errorf("%w: %q is a file and a directory", ErrInvalid, shorten(name))
		default:
			if len(name) > erofs.MaxName || len(at) > maxPath/2 {
				return nil, fmt.Errorf("%w: the name is too long behind a link", ErrInvalid)
			}
			e = implied(m.layer)
			m.text += int64(len(name))
			if m.entries++; m.entries > m.limits.Entries {
				return nil, fmt.Errorf("%w: more than %d entries", ErrLimit, m.limits.Entries)
			}
		}
		if make {
			d.Children[name] = e
		}
		at = append(at, e.Node)
	}
	return at[len(at)-1], nil
}

// mark is the new mark of a directory on the way to an entry of this layer.
func (m *Merger) mark(e erofs.Entry, adds bool) uint32 {
	if adds {
		return m.layer
	}
	return e.Mark
}

// whiteout removes what lower layers have.
func (m *Merger) whiteout(dir, base string) error {
	if base == opaque {
		d, err := m.lookup(dir)
		if err == nil && d != nil {
			m.removeLower(d)
		}
		return err
	}
	if strings.HasPrefix(base, auxiliary) {
		return nil
	}
	name := strings.TrimPrefix(base, whiteout)
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%w: it removes %q", ErrInvalid, name)
	}
	return m.remove(dir, name)
}

// remove removes a name of lower layers. What this layer has under that name stays,
// wherever in the layer the mark is.
func (m *Merger) remove(dir, name string) error {
	d, err := m.lookup(dir)
	if err != nil || d == nil {
		return err
	}
	m.removeEntry(d, name)
	return nil
}

func (m *Merger) removeEntry(d *erofs.Node, name string) {
	e, ok := d.Children[name]
	switch {
	case !ok:
	case e.Mark < m.layer:
		delete(d.Children, name)
	case e.IsDir():
		m.removeLower(e.Node)
	}
}

// removeLower removes what lower layers have in a directory. It looks at each directory
// once in a layer: nothing of a lower layer comes there again, and a layer with many marks
// for one large directory would take days.
func (m *Merger) removeLower(d *erofs.Node) {
	if m.swept[d] {
		return
	}
	m.swept[d] = true
	m.looks += len(d.Children)
	for name := range d.Children {
		m.removeEntry(d, name)
	}
}
