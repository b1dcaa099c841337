// SPDX-License-Identifier: Apache-2.0

// Package filecopy copies files between this host and a sandbox, as a tar. What comes
// from a sandbox is checked entry by entry: names that lead elsewhere, devices, endless
// files, trees without end are refused. It is written below an open directory only, by
// descriptors, under a name that is given up when all of it is there.
package filecopy

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"

	"sandboxctl.dev/actual/untrusted"
)

// Options say what is copied and how.
type Options struct {
	// Size bounds the bytes of all files, holes too; Entries how many there are. Each is
	// at least one.
	Size, Entries int64
	// Archive keeps the owners.
	Archive bool
	// UID and GID are those of all files, if not -1.
	UID, GID int
	// KeepLinks has symbolic links copied that lead out of what is copied.
	KeepLinks bool
	// Progress is called with the bytes copied by now, if it is not nil.
	Progress func(bytes int64)
}

// Report is what was copied.
type Report struct {
	Files, Bytes int64
	// Links are the symbolic links that lead out of the copy, and were left out.
	Links int64
	// Skipped are the sockets, fifos and devices, which are never copied.
	Skipped int64
}

const (
	maxPath  = 4000
	maxDepth = 256
	maxName  = 255
	// maxNames bounds the bytes of all names: they are in memory.
	maxNames = 256 << 20
)

// copying is a copy under way.
type copying struct {
	Options
	Report
	entries, names int64
	// unnamed are entries of which nothing is copied.
	unnamed int64
}

// count is called for each entry before anything is made of it.
func (c *copying) count(h *tar.Header) error {
	c.entries++
	c.names += int64(len(h.Name) + len(h.Linkname))
	switch {
	case c.entries > c.Entries:
		return fmt.Errorf("more than %d files; --max-files allows more", c.Entries)
	case c.names > maxNames:
		return fmt.Errorf("the names of the files have more than %d bytes", maxNames)
	case h.Size < 0 || h.Size > c.Size-c.Bytes:
		return fmt.Errorf("more than %d bytes in all, with %q; --max-size allows more", c.Size, untrusted.Line(h.Name, 200))
	}
	if h.Typeflag != tar.TypeDir {
		c.Files++
	}
	return nil
}

// content is that of one file. What is read of it counts.
type content struct {
	r io.Reader
	c *copying
}

func (r content) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.c.Bytes += int64(n)
	if r.c.Progress != nil {
		r.c.Progress(r.c.Bytes)
	}
	return n, err
}

// components are those of a name from a tar, all of them below what it is relative to.
func components(name string) ([]string, error) {
	if len(name) > maxPath {
		return nil, fmt.Errorf("a path of %d bytes, expected at most %d", len(name), maxPath)
	}
	parts := strings.Split(strings.TrimSuffix(name, "/"), "/")
	for _, p := range parts {
		switch {
		case p == "" || p == "." || p == "..":
			return nil, fmt.Errorf("the name %q leads elsewhere", untrusted.Line(name, 200))
		case len(p) > maxName || strings.ContainsRune(p, 0):
			return nil, fmt.Errorf("the name %q is none", untrusted.Line(name, 200))
		}
	}
	if len(parts) > maxDepth {
		return nil, fmt.Errorf("more than %d directories in each other", maxDepth)
	}
	return parts, nil
}

// leadsOut says whether a symbolic link leads out of what is copied, or may: one that goes
// up after it has gone down could have gone down through another link.
func leadsOut(parts []string, to string) bool {
	if path.IsAbs(to) || len(parts) == 1 {
		return true
	}
	// Directories of the copy between its top and the link.
	depth, down := len(parts)-2, false
	for p := range strings.SplitSeq(to, "/") {
		switch p {
		case "", ".":
		case "..":
			if depth--; depth < 0 || down {
				return true
			}
		default:
			down = true
		}
	}
	return false
}

// maxHeaders bounds what may be between the content of two entries of a tar: extended headers
// of one MiB each, as many as somebody likes, which are read before there is an entry that
// could be counted.
const maxHeaders = 4 << 20

// entries are those of a tar.
type entries struct {
	*tar.Reader
	from *metered
}

func entriesOf(r io.Reader) *entries {
	m := &metered{r: r}
	return &entries{tar.NewReader(m), m}
}

// Next is that of tar.Reader. The content of the entry before was read.
func (t *entries) Next() (*tar.Header, error) {
	t.from.left = maxHeaders
	h, err := t.Reader.Next()
	t.from.left = math.MaxInt64
	return h, err
}

// metered reads as much as is left.
type metered struct {
	r    io.Reader
	left int64
}

func (m *metered) Read(b []byte) (int, error) {
	if m.left <= 0 {
		return 0, fmt.Errorf("more than %d bytes of headers before an entry", maxHeaders)
	}
	n, err := m.r.Read(b[:min(int64(len(b)), m.left)])
	m.left -= int64(n)
	return n, err
}

// next returns the next entry that is to be copied, checked.
func (c *copying) next(t *entries) (*tar.Header, []string, error) {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil, nil, io.EOF
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read archive: %w", err)
		}
		if err := c.count(h); err != nil {
			return nil, nil, err
		}
		parts, err := components(h.Name)
		if err != nil {
			return nil, nil, err
		}
		switch h.Typeflag {
		case tar.TypeDir, tar.TypeReg:
		case tar.TypeSymlink:
			if h.Linkname == "" || len(h.Linkname) > maxPath || strings.ContainsRune(h.Linkname, 0) {
				return nil, nil, fmt.Errorf("%q is a symbolic link that leads nowhere", untrusted.Line(h.Name, 200))
			}
			if !c.KeepLinks && leadsOut(parts, h.Linkname) {
				c.Files--
				c.Links++
				continue
			}
		default:
			return nil, nil, fmt.Errorf("%q is neither a file nor a directory nor a symbolic link (type %q)", untrusted.Line(h.Name, 200), h.Typeflag)
		}
		if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= noID || int64(h.Gid) >= noID {
			return nil, nil, fmt.Errorf("%q has an owner that is none: %d:%d", untrusted.Line(h.Name, 200), h.Uid, h.Gid)
		}
		return h, parts, nil
	}
}

// noID is what the kernel takes for no user.
const noID = 1<<32 - 1
