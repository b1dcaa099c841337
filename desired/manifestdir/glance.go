// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"context"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/desired/yamldoc"
)

// notices are what notifications have told since the last look. A look at the files
// that they name is enough only while all of them arrive and while the directory is
// plain; everything else asks for a look at everything.
type notices struct {
	mu       sync.Mutex
	watching bool // notifications arrive
	doubt    bool // anything may have changed
	paths    map[string]bool
	// watched are the directories that notifications tell of, by path below the top.
	watched map[string]Identity
}

// maxPaths is how many files are looked at one by one. Beyond it, a look at everything
// is cheaper.
const maxPaths = 500

// watch says whether notifications arrive from now on, and of which directories. What
// happened before is not known.
func (n *notices) watch(on bool, dirs map[string]Identity) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watching, n.doubt, n.watched = on, true, dirs
}

// unwatched are those of directories that no notification tells of: they came, were
// mounted over, or were not to be looked at when the watches were made.
func (n *notices) unwatched(dirs map[string]Identity) (out []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.watching {
		return nil
	}
	for p, id := range dirs {
		if was, ok := n.watched[p]; !ok || was != id {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// isWatched says whether a path was that of a directory when the watches were made.
func (n *notices) isWatched(p string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.watched[p]
	return ok
}

// anything says that no notification tells what has changed.
func (n *notices) anything() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doubt = true
}

// path says that something has happened to a file.
func (n *notices) path(p string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.paths) >= maxPaths {
		n.doubt = true
		return
	}
	if n.paths == nil {
		n.paths = map[string]bool{}
	}
	n.paths[p] = true
}

// take returns what was told, and whether that is all that can have changed.
func (n *notices) take() (paths map[string]bool, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	paths, known = n.paths, n.watching && !n.doubt
	n.paths, n.doubt = nil, false
	return paths, known
}

// whole is what is remembered of the last look at everything.
type whole struct {
	at     time.Time
	top    Identity
	policy string
	dirs   map[string]Identity // those below the top, by path
	// plain says that it found only directories and files, all of them as they should
	// be; calm, that nothing of them waits for a look at everything either.
	plain, calm bool
}

// look brings the index up to date: by a look at the files that notifications name, if
// that is enough, and otherwise by a look at everything.
func (d *Dir) look(ctx context.Context, s *desired.Snapshot, policy string) (Identity, error) {
	paths, known := d.notices.take()
	now := time.Now()
	part := known && d.whole.calm && d.whole.policy == policy && !d.absent.due(now) && now.Sub(d.whole.at) < d.enough(len(paths) > 0)
	if part && d.glance(ctx, s, paths) {
		d.glanced = true
		return d.whole.top, nil
	}
	d.whole, d.glanced = whole{at: now, policy: policy}, false
	id, err := d.scan(ctx, s, policy)
	if err != nil {
		d.notices.anything() // what was told is not known yet
		return id, err
	}
	d.seeWatches()
	return id, nil
}

// seeWatches has Run make the watches again where a look at everything found a directory
// that none is on, once for the same ones: then no look at a part is enough.
func (d *Dir) seeWatches() {
	if d.links.Load() {
		return // directories behind links are not watched, and no look is one at a part
	}
	unwatched := d.notices.unwatched(d.whole.dirs)
	if len(unwatched) == 0 {
		d.unwatched = nil
		return
	}
	d.whole.plain = false
	if !slices.Equal(d.unwatched, unwatched) {
		d.unwatched = unwatched
		d.rearm.Store(true)
		d.markDirty()
	}
}

// enough is for how long after a look at everything looks at a part are. Run sees to it
// that those which something tells of are soon followed by one at everything.
func (d *Dir) enough(told bool) time.Duration {
	if told {
		return 2 * max(d.opts.PollEvery, d.opts.Resync)
	}
	return min(d.opts.PollEvery, d.opts.Resync)
}

// calm says whether the next look may be one at a part: there is nothing that only a
// look at everything can find out.
func (d *Dir) calm(s *desired.Snapshot) bool {
	if !d.whole.plain || d.links.Load() || d.index.below(".").defines == 0 || len(d.dirMissing) > 0 ||
		d.absent.doubt || !d.opts.Once && time.Since(d.absent.first) < d.opts.Settle {
		return false
	}
	for p := range d.memory.Dirs {
		if d.index.below(p).defines == 0 {
			return false // it may have been swapped or unmounted
		}
	}
	switch s.Reason {
	case "", desired.ReasonInvalidManifests, desired.ReasonUnsettled:
		return true
	}
	return false
}

// glance looks at the files named and at those that are being written. It returns false
// when what it sees takes a look at everything: a directory, a link, an ignore file, or
// a directory that is not the one that it was. It decides on no absence: that takes the
// word of a look at everything.
func (d *Dir) glance(ctx context.Context, s *desired.Snapshot, paths map[string]bool) bool {
	top, err := trustedfile.Open(d.opts.Path)
	if err != nil {
		return false
	}
	defer top.Close()
	if id, err := statDir(int(top.Fd())); err != nil || id != d.whole.top {
		return false
	}
	g := &glancer{
		scanner: scanner{ctx: ctx, d: d, snap: s, policy: d.whole.policy, top: top, rules: d.rules},
		parents: map[string]bool{},
	}
	for p := range paths {
		if !g.plain(p) {
			return false
		}
	}
	for p, f := range d.index.odd {
		if (f.unsettled || f.unread) && !paths[p] && !g.plain(p) {
			return false
		}
	}
	for _, p := range g.paths {
		e := g.file(p)
		g.take(p, e)
		if e != nil && len(e.problems) > 0 && e.look == d.looks {
			// It may say where a manifest has moved that went away before, of which
			// nobody has told yet: what is there is looked at together with it.
			return false
		}
	}
	if len(d.index.files) > MaxFiles || d.index.below(".").defines == 0 {
		return false
	}
	for _, p := range g.paths {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if _, held := d.memory.Dirs[dir]; held != (d.index.below(dir).defines > 0) {
				return false // its first manifest came, or its last one went
			}
		}
	}
	again, err := os.Stat(d.opts.Path)
	if err != nil {
		return false
	}
	now, err := top.Stat()
	return err == nil && os.SameFile(again, now) && ctx.Err() == nil
}

// glancer is a scanner of single files.
type glancer struct {
	scanner

	parents map[string]bool // directories that were looked at
}

// plain notes a path if it is that of a manifest. It returns false when it is, or was,
// something else that counts.
func (g *glancer) plain(p string) bool {
	dir := path.Dir(p)
	for part := range strings.SplitSeq(dir, "/") {
		if strings.HasPrefix(part, ".") && part != "." {
			return true // nothing in there is looked at
		}
	}
	name := path.Base(p)
	if name == desired.IgnoreFile {
		return false
	}
	if _, entered := g.d.whole.dirs[p]; entered {
		return false
	}
	if strings.HasPrefix(name, ".") || g.ignored(p, false) {
		return true
	}
	if !g.parent(dir) {
		return false
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(g.top.Fd()), p, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && err != unix.ENOENT || err == nil && (st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Mode&unix.S_IFMT == unix.S_IFLNK) {
		return false
	}
	if err == nil && st.Nlink > 1 {
		return false // it may be written by its other name, which nothing tells of
	}
	if !IsManifestName(name) {
		return true
	}
	if !yamldoc.Printable(name, "") {
		return false
	}
	g.paths = append(g.paths, p)
	return true
}

// parent says whether a directory is the one that the last look at everything entered,
// and is still to be trusted: something may have been mounted over it, which nothing
// notifies of.
func (g *glancer) parent(dir string) bool {
	if dir == "." || g.parents[dir] {
		return true
	}
	was, entered := g.d.whole.dirs[dir]
	if !entered {
		return false
	}
	f, err := g.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || trustedfile.Judge(dir, &st, true) != nil {
		return false
	}
	id, err := statDir(int(f.Fd()))
	g.parents[dir] = err == nil && id == was
	return g.parents[dir]
}
