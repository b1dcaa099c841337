// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/untrusted"
)

// entry is what a walk comes to.
type entry struct {
	// path is that in the volume, "." for its top.
	path string
	// dir is the directory that it is in, nil of the top; name its name there.
	dir  *os.File
	name string
	stat unix.Stat_t
	// open is the directory itself, if it is one. It is closed when the walk leaves it.
	open *os.File
}

// maxDepth is how deep directories may be in each other. Each one on the way is kept open.
const maxDepth = 500

// errTooDeep says that a tree is deeper than this program goes.
var errTooDeep = fmt.Errorf("directories are more than %d deep", maxDepth)

// visit is called for what a walk comes to.
type visit func(*entry) error

// walk calls before for each entry of a tree, a directory before what is in it, small
// directories in the order of names. The tree may be changed at the same time, by a sandbox that means harm: names are
// looked up in open directories, no link is followed, and no mount is entered. What vanishes
// meanwhile was never there.
func walk(ctx context.Context, top *os.File, before visit) error {
	dir, err := openDir(top, ".", unix.O_RDONLY)
	if err != nil {
		return err
	}
	w := walker{ctx: ctx, before: before}
	e := &entry{path: ".", open: dir}
	if err := unix.Fstat(int(dir.Fd()), &e.stat); err != nil {
		return errors.Join(err, dir.Close())
	}
	return w.directory(e, 0)
}

type walker struct {
	ctx    context.Context //nolint:containedctx // of the one walk that it is for
	before visit
}

// directory visits a directory and all that is in it, and closes it.
func (w *walker) directory(e *entry, depth int) error {
	defer e.open.Close()
	if err := w.before(e); err != nil {
		return err
	}
	for {
		names, err := e.open.Readdirnames(batch)
		slices.Sort(names)
		for _, name := range names {
			if w.ctx.Err() != nil {
				return context.Cause(w.ctx)
			}
			if err := w.child(e, name, depth); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", shown(e.path), err)
		}
	}
}

// batch is how many names of a directory are read at once. A sandbox decides how many there
// are, and the daemon walks too: its memory must not grow with them.
const batch = 256

// shown is a path for an error. A sandbox has chosen it: it may be long and hold anything.
func shown(path string) string { return strconv.Quote(untrusted.Line(path, 200)) }

func (w *walker) child(of *entry, name string, depth int) error {
	c := &entry{path: name, dir: of.open, name: name}
	if of.path != "." {
		c.path = of.path + "/" + name
	}
	err := unix.Fstatat(int(of.open.Fd()), name, &c.stat, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && c.stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		if depth >= maxDepth {
			return fmt.Errorf("%s: %w", shown(c.path), errTooDeep)
		}
		if c.open, err = openDir(of.open, name, unix.O_RDONLY); err == nil {
			if err := unix.Fstat(int(c.open.Fd()), &c.stat); err != nil { // it may be another one by now
				return errors.Join(err, c.open.Close())
			}
			return w.directory(c, depth+1)
		}
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
		return nil // gone, replaced, or a mount
	case err != nil:
		return fmt.Errorf("%s: %w", shown(c.path), err)
	}
	return w.before(c)
}
