// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/desired/yamldoc"
)

// Limits of a manifests directory.
const (
	MaxFiles   = 20000
	maxDirDeep = 8
)

// scan reads what changed in the directory into the index and reports what is
// not a file it can read.
func (d *Dir) scan(ctx context.Context, s *desired.Snapshot, policyDigest string) (Identity, error) {
	// The one place where a link is followed out of the directory: the configured
	// path may be a link, as git-sync and Kubernetes make.
	top, err := trustedfile.Open(d.opts.Path)
	if err != nil {
		return Identity{}, err
	}
	defer top.Close()
	id, err := statDir(int(top.Fd()))
	if err != nil {
		return Identity{}, err
	}
	sc := &scanner{ctx: ctx, d: d, snap: s, policy: policyDigest, top: top, seen: map[[2]uint64]string{}, linked: map[string]bool{}, dirs: map[string]Identity{}}
	if err := sc.dir(top, "", 0, false); err != nil {
		return Identity{}, err
	}
	files := sc.files()
	if err := ctx.Err(); err != nil {
		return Identity{}, err // some were not looked at
	}
	sc.replace(files)
	if d.links.Swap(sc.links) != sc.links && sc.links {
		// What happened until now to hidden files, which links lead to, was not told.
		d.notices.anything()
		d.lookAgain(time.Now())
	}
	d.rules = sc.rules
	d.whole.top, d.whole.dirs = id, sc.dirs
	d.identifyBelow(sc, id)
	d.whole.plain = !sc.unsure && len(s.Problems) == 0
	d.index.walked(s.Problems)
	// A directory that was swapped while it was read is none.
	again, err := os.Stat(d.opts.Path)
	if err != nil {
		return Identity{}, err
	}
	if now, err := top.Stat(); err != nil || !os.SameFile(again, now) {
		d.whole.plain = false
		d.incomplete(s, desired.ReasonUnsettled, "the manifests directory was replaced while it was read")
		d.lookAgain(time.Now().Add(d.opts.Settle))
	}
	return id, nil
}

// scanner is one walk of the directory.
type scanner struct {
	ctx   context.Context //nolint:containedctx // of the one walk
	d     *Dir
	snap  *desired.Snapshot
	top   *os.File
	paths []string // of the manifest files
	// linked are those of paths that a link leads to.
	linked map[string]bool
	links  bool   // there are links
	policy string // the digest of Snapshot.Policy
	// seen are the directories that have been entered, by device and inode:
	// links that lead back would multiply without end.
	seen  map[[2]uint64]string
	dirs  map[string]Identity // those below the top, by path
	rules IgnoreRules
	// unsure says that an ignore file is being written.
	unsure bool
}

// files looks at all paths, on all processors if many are new: parsing is most of the work
// of a program that starts. To see that a few did not change takes less time than to wake
// another thread. An entry is nil if its file was removed meanwhile.
func (sc *scanner) files() []*fileEntry {
	entries := make([]*fileEntry, len(sc.paths))
	var next atomic.Int64
	var wg sync.WaitGroup
	work := func() {
		for i := next.Add(1) - 1; i < int64(len(entries)) && sc.ctx.Err() == nil; i = next.Add(1) - 1 {
			entries[i] = sc.file(sc.paths[i])
		}
	}
	unknown := max(0, len(sc.paths)-len(sc.d.index.files))
	for range min(runtime.GOMAXPROCS(0)-1, unknown/8+len(sc.paths)/1000) {
		wg.Go(work)
	}
	work()
	wg.Wait()
	return entries
}

// replace makes the files that were found all that there are.
func (sc *scanner) replace(entries []*fileEntry) {
	found := 0
	for i, e := range entries {
		sc.take(sc.paths[i], e)
		if e != nil {
			found++
		}
	}
	files := sc.d.index.files
	if found == len(files) {
		return
	}
	there := make(map[string]bool, len(sc.paths))
	for _, p := range sc.paths {
		there[p] = true
	}
	for p := range files {
		if !there[p] {
			sc.d.index.put(p, nil)
		}
	}
}

// take puts the entry of a file into the index, nil if there is none.
func (sc *scanner) take(p string, e *fileEntry) {
	sc.d.index.put(p, e)
	if e == nil {
		return // removed while we looked
	}
	if e.unsettled {
		// Sooner than Settle: the end of the writing is what everybody
		// waits for, and nothing notifies of it.
		sc.d.lookAgain(time.Now().Add(sc.d.opts.Settle / 5))
	}
	if e.unread {
		sc.d.lookAgain(time.Now().Add(min(linkRecheck, sc.d.opts.PollEvery)))
	}
}

// problem reports what is not a file that can be read: it may define any sandbox.
func (sc *scanner) problem(file, format string, args ...any) {
	sc.snap.Problems = append(sc.snap.Problems, desired.Problem{Position: desired.Position{File: file}, Message: fmt.Sprintf(format, args...), Opaque: true})
}

// dir walks one directory. Names that begin with a dot are not looked at:
// editors, git and the `..data` of Kubernetes keep their own things there.
// linked says that a link led here.
func (sc *scanner) dir(dir *os.File, rel string, depth int, linked bool) error {
	if err := sc.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDirDeep {
		sc.problem(rel, "directories are nested more than %d deep", maxDirDeep)
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("stat directory: %w", err)
	}
	if err := trustedfile.Judge(path.Join(".", rel), &st, true); err != nil {
		sc.problem(rel, "it is not trusted: the directory %v", err)
		return nil
	}
	id, err := statDir(int(dir.Fd()))
	if err != nil {
		return err
	}
	key := [2]uint64{id.Dev, id.Ino}
	if first, twice := sc.seen[key]; twice {
		sc.problem(rel, "it is the directory %s again; remove the link to it", path.Join(".", first))
		sc.snap.Problems[len(sc.snap.Problems)-1].Opaque = false
		return nil
	}
	sc.seen[key] = rel
	if rel != "" {
		if len(sc.dirs) >= maxDirs {
			sc.problem(rel, "more than %d directories; the rest is not read", maxDirs)
			return nil
		}
		sc.dirs[rel] = id
	}
	sc.readIgnore(rel)
	entries, err := dir.ReadDir(-1)
	if err != nil && rel != "" {
		sc.unreadable(rel, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", sc.d.opts.Path, err)
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if more, err := sc.entry(e, path.Join(rel, e.Name()), depth, linked); err != nil || !more {
			return err
		}
	}
	return nil
}

// entry takes note of one entry of a directory, which is at p, and says whether those
// after it are to be looked at.
func (sc *scanner) entry(e os.DirEntry, p string, depth int, linked bool) (more bool, err error) {
	name, link := e.Name(), e.Type()&fs.ModeSymlink != 0
	sc.links = sc.links || link && (name[0] != '.' || name == desired.IgnoreFile)
	switch {
	case strings.HasPrefix(name, "."), sc.ignored(p, e.IsDir()):
	case !yamldoc.Printable(name, ""):
		// Also a directory, or what may lead to one: manifests that are passed
		// over in silence are sandboxes that are removed.
		if IsManifestName(name) || e.IsDir() || link {
			sc.problem(yamldoc.Shown(p), "the name is not printable UTF-8; rename it")
		}
	case e.IsDir():
		files, problems := len(sc.paths), len(sc.snap.Problems)
		err := sc.subdir(p, depth, linked)
		if err == nil && IsManifestName(name) && len(sc.paths) == files && len(sc.snap.Problems) == problems && sc.there(p) {
			// Container engines make one where the file that they are to mount is missing.
			sc.problem(p, "expected a file, it is a directory without manifests; put the file there, or remove or rename the directory")
			sc.snap.Problems[problems].Opaque = false
		}
		return true, err
	case IsManifestName(name):
		if len(sc.paths) >= MaxFiles {
			sc.problem(p, "more than %d manifest files; the rest is not read", MaxFiles)
			return false, nil
		}
		sc.paths = append(sc.paths, p)
		if linked || link {
			sc.linked[p] = true
		}
	case link:
		return true, sc.link(p, depth)
	}
	return true, nil
}

// link looks where a link leads that is not called as a manifest is. To a directory:
// that would be hidden if it were passed over. To nothing: it may have led to one,
// or will in a moment, when its volume is mounted or its target is filled.
func (sc *scanner) link(p string, depth int) error {
	st, err := sc.stat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !sc.there(p):
		return nil // removed while we looked
	case err != nil:
		sc.problem(p, "%v", sc.linkHint(p, err))
		sc.d.lookAgain(time.Now().Add(linkRecheck))
		return nil
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return sc.subdir(p, depth, true)
	}
	return nil
}

// linkRecheck is how soon a link that can't be followed is looked at again: nothing
// tells when its target comes.
const linkRecheck = time.Second

// IsManifestName says whether a file is called as manifests are.
func IsManifestName(name string) bool {
	// Some systems and people write it large: what is passed over in silence is
	// missed by its author.
	switch strings.ToLower(path.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

func (sc *scanner) subdir(p string, depth int, linked bool) error {
	var f *os.File
	var err error
	if linked {
		f, err = trustedfile.OpenBelow(sc.top, p)
	} else {
		f, err = sc.open(p, unix.O_RDONLY|unix.O_DIRECTORY)
	}
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, trustedfile.ErrDangling) && !sc.there(p) {
		return nil // removed while we looked; the absence is seen next time too
	}
	if err != nil {
		sc.unreadable(p, err)
		return nil
	}
	defer f.Close()
	return sc.dir(f, p, depth+1, linked)
}

func (sc *scanner) unreadable(dir string, err error) {
	sc.problem(dir, "the directory can't be read: %v", sc.linkHint(dir, err))
	sc.d.lookAgain(time.Now().Add(sc.d.opts.PollEvery))
}

// open opens a path below the directory. Links are followed as long as they
// stay inside of it: the way Kubernetes and git-sync publish files. One that
// leads out could name any file of the host in an error message.
func (sc *scanner) open(p string, flags uint64) (*os.File, error) {
	fd, err := sc.openFd(p, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), p), nil
}

func (sc *scanner) openFd(p string, flags uint64) (dirfd.Fd, error) {
	if flags&unix.O_PATH == 0 {
		// A fifo or terminal among the manifests must not block or be taken.
		flags |= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	return dirfd.OpenFd(int(sc.top.Fd()), p, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
}

// stat looks at what a path leads to. A plain file takes one system call: nothing
// follows from what is seen of it, only which file is opened and compared next.
func (sc *scanner) stat(p string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if !sc.linked[p] && unix.Fstatat(int(sc.top.Fd()), p, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return &st, nil
	}
	f, err := sc.openFd(p, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Fstat(int(f), &st); err != nil {
		return nil, err
	}
	return &st, nil
}

// linkHint says what is wrong with a link, if that is what an error is about.
func (sc *scanner) linkHint(p string, err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		return errors.New("it is a symbolic link in a loop of links; remove it")
	case errors.Is(err, unix.EXDEV):
		return errors.New("it is a symbolic link that leads out of the manifests directory, which is not followed; copy what it leads to")
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("it is a symbolic link that leads to nothing%s; correct or remove it", sc.target(p))
	}
	return err
}

// target is where a link leads, for a message.
func (sc *scanner) target(p string) string {
	f, err := sc.open(p, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", b)
	if err != nil {
		return ""
	}
	return " (" + yamldoc.Clip(yamldoc.Shown(string(b[:n]))) + ")"
}

// file returns the entry of one file, the old one if it did not change, nil if
// there is none. It is called from several goroutines.
func (sc *scanner) file(p string) *fileEntry {
	sc.d.examined.Add(1)
	old := sc.d.index.files[p]
	if !sc.linked[p] && old.isStill(int(sc.top.Fd()), sc.policy) {
		return old
	}
	st, err := sc.stat(p)
	if errors.Is(err, fs.ErrNotExist) && !sc.there(p) {
		return nil
	}
	if err != nil {
		return sc.unread(p, err)
	}
	id := trustedfile.IDOf(st)
	// What a link leads through may change without the file.
	if sc.linked[p] {
		f, err := trustedfile.OpenBelow(sc.top, p)
		if err != nil {
			e := sc.unread(p, err)
			e.problems[0].Message = fmt.Sprintf("the file is not trusted: %v", sc.linkHint(p, err))
			return e
		}
		f.Close()
	}
	if old != nil && old.id == id && old.policy == sc.policy && !old.unsettled {
		return old
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return sc.badFile(p, id, "expected a regular file; remove it or rename it to something without a manifest's extension")
	}
	f, err := sc.openFd(p, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) && !sc.there(p) {
		return nil
	}
	if errors.Is(err, unix.EAGAIN) {
		return sc.unsettled(p, old, id)
	}
	if err != nil {
		return sc.unread(p, err)
	}
	defer func() { _ = f.Close() }()
	// Of the file that is read, whatever is at its path by now.
	if err := unix.Fstat(int(f), st); err != nil {
		return sc.unread(p, err)
	}
	// And its identity: a link may lead elsewhere since the first look.
	id = trustedfile.IDOf(st)
	if err := trustedfile.Judge("the file", st, true); err != nil {
		e := sc.badFile(p, id, "%v", err)
		e.problems[0].Opaque = true
		return e
	}
	release, writing := trustedfile.Lease(int(f), st, sc.d.opts.Settle)
	if writing {
		return sc.unsettled(p, old, id)
	}
	b, err := dirfd.ReadRegular(f, st.Size, yamldoc.MaxFileBytes)
	now, serr := sc.stat(p)
	release()
	if err != nil {
		return sc.unread(p, err)
	}
	// Replaced, or where there are no leases written, while it was read.
	if serr != nil || now.Size != st.Size || now.Mtim != st.Mtim || now.Ino != st.Ino {
		return sc.unsettled(p, old, id)
	}
	e := sc.decoded(p, id, b)
	e.expose(st.Mode)
	return e
}

// isStill says that the file of an entry is the one it was, in one system call:
// most of ten thousand files are, each time that one of them changes. What else it
// may be is found out with more care.
func (e *fileEntry) isStill(top int, policy string) bool {
	var st unix.Stat_t
	return e != nil && !e.unsettled && e.policy == policy && unix.Fstatat(top, e.path, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && trustedfile.IDOf(&st) == e.id
}

func (sc *scanner) badFile(p string, id trustedfile.ID, format string, args ...any) *fileEntry {
	return &fileEntry{path: p, id: id, look: sc.d.looks, problems: []desired.Problem{{Position: desired.Position{File: p}, Message: fmt.Sprintf(format, args...)}}}
}

// unread is a file that the system refuses to read, or a link that leads to none. It
// is tried again, since it looks the same when that is over.
func (sc *scanner) unread(p string, err error) *fileEntry {
	e := sc.badFile(p, trustedfile.ID{}, "the file can't be read: %v", sc.linkHint(p, err))
	e.unread, e.problems[0].Opaque = true, true
	return e
}

// unsettled keeps what a file said before for as long as it is being written.
func (sc *scanner) unsettled(p string, old *fileEntry, id trustedfile.ID) *fileEntry {
	e := &fileEntry{path: p, id: id, policy: sc.policy, look: sc.d.looks, unsettled: true}
	if old == nil {
		return e
	}
	e.entries, e.objects, e.problems, e.foreign, e.exposed = old.entries, old.objects, old.problems, old.foreign, old.exposed
	if old.policy == sc.policy || sc.snap.Policy == nil {
		return e
	}
	// What it said before was judged by another policy.
	e.entries, e.objects = nil, nil
	for _, old := range old.entries {
		errs := sc.snap.Policy.Check(old.Sandbox)
		for _, err := range errs {
			e.problems = append(slices.Clip(e.problems), desired.Problem{Position: old.Source, Name: old.Sandbox.Metadata.Name, Field: err.Field, Reason: desired.ReasonPolicyDenied, Message: err.Message})
		}
		if len(errs) == 0 {
			e.entries = append(e.entries, old)
		}
	}
	return e
}
