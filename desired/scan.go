// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Limits of a manifests directory.
const (
	MaxFiles   = 20000
	maxDirDeep = 8
)

// fileEntry is what one file said when it was last read.
type fileEntry struct {
	path     string
	id       fileID
	policy   string // the digest of what it was judged by
	entries  []Entry
	problems []Problem
	// unsettled says that somebody had it open for writing: entries are those
	// of before.
	unsettled bool
	// unread says that the system refused to read it.
	unread bool
}

// fileID changes when a file is written or replaced.
type fileID struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// scan reads what changed in the directory into d.files and reports what is
// not a file it can read.
func (d *Dir) scan(ctx context.Context, s *Snapshot, policyDigest string) (dirID, error) {
	// The one place where a link is followed out of the directory: whoever
	// configured the path may have meant one, as git-sync and Kubernetes make.
	top, err := OpenTrusted(d.opts.Path)
	if err != nil {
		return dirID{}, err
	}
	defer top.Close()
	id, err := statDir(int(top.Fd()))
	if err != nil {
		return dirID{}, err
	}
	sc := &scanner{ctx: ctx, d: d, snap: s, policy: policyDigest, top: top, seen: map[[2]uint64]string{}, linked: map[string]bool{}}
	if err := sc.dir(top, "", 0, false); err != nil {
		return dirID{}, err
	}
	files := sc.files()
	if err := ctx.Err(); err != nil {
		return dirID{}, err // some were not looked at
	}
	d.files = files
	// A directory that was swapped while it was read is none.
	again, err := os.Stat(d.opts.Path)
	if err != nil {
		return dirID{}, err
	}
	if now, err := top.Stat(); err != nil || !os.SameFile(again, now) {
		d.incomplete(s, ReasonUnsettled, "the manifests directory was replaced while it was read")
		d.lookAgain(time.Now().Add(d.opts.Settle))
	}
	return id, nil
}

// scanner is one walk of the directory.
type scanner struct {
	ctx   context.Context //nolint:containedctx // of the one walk
	d     *Dir
	snap  *Snapshot
	top   *os.File
	paths []string // of the manifest files
	// linked are those of paths that a link leads to.
	linked map[string]bool
	policy string // the digest of Snapshot.Policy
	// seen are the directories that have been entered, by device and inode:
	// links that lead back would multiply without end.
	seen map[[2]uint64]string
}

// files brings the entries of the files up to date, on all processors: parsing
// is most of the work of a program that starts.
func (sc *scanner) files() map[string]*fileEntry {
	entries := make([]*fileEntry, len(sc.paths))
	var next atomic.Int64
	var wg sync.WaitGroup
	work := func() {
		for i := next.Add(1) - 1; i < int64(len(entries)) && sc.ctx.Err() == nil; i = next.Add(1) - 1 {
			entries[i] = sc.file(sc.paths[i])
		}
	}
	for range min(runtime.GOMAXPROCS(0)-1, len(sc.paths)/8) {
		wg.Go(work)
	}
	work()
	wg.Wait()
	out := make(map[string]*fileEntry, len(entries))
	for _, e := range entries {
		if e == nil {
			continue // removed while we looked
		}
		out[e.path] = e
		if e.unsettled {
			// Sooner than Settle: the end of the writing is what everybody
			// waits for, and nothing notifies of it.
			sc.d.lookAgain(time.Now().Add(sc.d.opts.Settle / 5))
		}
		if e.unread {
			sc.d.lookAgain(time.Now().Add(sc.d.opts.PollEvery))
		}
	}
	return out
}

func (sc *scanner) problem(file, format string, args ...any) {
	sc.snap.Problems = append(sc.snap.Problems, Problem{Position: Position{File: file}, Message: fmt.Sprintf(format, args...)})
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
	if err := judge(path.Join(".", rel), &st, true); err != nil {
		sc.problem(rel, "it can't be relied on: the directory %v", err)
		return nil
	}
	id, err := statDir(int(dir.Fd()))
	if err != nil {
		return err
	}
	key := [2]uint64{id.dev, id.ino}
	if first, twice := sc.seen[key]; twice {
		sc.problem(rel, "it is the directory %s again; remove the link to it", path.Join(".", first))
		return nil
	}
	sc.seen[key] = rel
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("list %s: %w", path.Join(sc.d.opts.Path, rel), err)
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		name := e.Name()
		p := path.Join(rel, name)
		switch {
		case strings.HasPrefix(name, "."):
		case !printable(name, ""):
			// Also a directory, or what may lead to one: manifests that are passed
			// over in silence are sandboxes that are removed.
			if hasManifestExt(name) || e.IsDir() || e.Type()&fs.ModeSymlink != 0 {
				sc.problem(shown(p), "the name is not printable UTF-8; rename it")
			}
		case e.IsDir():
			if err := sc.subdir(p, depth, linked); err != nil {
				return err
			}
		case hasManifestExt(name):
			if len(sc.paths) >= MaxFiles {
				sc.problem(p, "more than %d manifest files; the rest is not read", MaxFiles)
				return nil
			}
			sc.paths = append(sc.paths, p)
			if linked || e.Type()&fs.ModeSymlink != 0 {
				sc.linked[p] = true
			}
		case e.Type()&fs.ModeSymlink != 0:
			// A link to a directory would hide what is below it if it were
			// passed over.
			if fi, err := sc.stat(p); err == nil && fi.Mode&unix.S_IFMT == unix.S_IFDIR {
				if err := sc.subdir(p, depth, true); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// shown is a path with everything replaced that is not printable.
func shown(p string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !printable(string(r), "") {
			return '?'
		}
		return r
	}, p)
}

func hasManifestExt(name string) bool {
	switch path.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

func (sc *scanner) subdir(p string, depth int, linked bool) error {
	var f *os.File
	var err error
	if linked {
		f, err = openTrustedBelow(sc.top, p)
	} else {
		f, err = sc.open(p, unix.O_RDONLY|unix.O_DIRECTORY)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed while we looked; the absence is seen next time too
	}
	if err != nil {
		sc.problem(p, "the directory can't be read: %v", linkHint(err))
		return nil
	}
	defer f.Close()
	return sc.dir(f, p, depth+1, linked)
}

// maxTries bounds how often an open is tried again.
const maxTries = 128

// open opens a path below the directory. Links are followed as long as they
// stay inside of it: the way Kubernetes and git-sync publish files. One that
// leads out could name any file of the host in an error message.
func (sc *scanner) open(p string, flags uint64) (*os.File, error) {
	if flags&unix.O_PATH == 0 {
		// A fifo or terminal among the manifests must not block or be taken.
		flags |= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(int(sc.top.Fd()), p, &unix.OpenHow{
			Flags:   flags | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
		})
		// Something on the way was renamed meanwhile; or somebody has a lease on
		// the file, for as long as that is.
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && try < maxTries {
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), p), nil
	}
}

func (sc *scanner) stat(p string) (*unix.Stat_t, error) {
	f, err := sc.open(p, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	return &st, nil
}

func linkHint(err error) error {
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("it is a symbolic link that leads out of the manifests directory, which is not followed; copy it there")
	}
	return err
}

// file returns the entry of one file, the old one if it did not change, nil if
// there is none. It is called from several goroutines.
func (sc *scanner) file(p string) *fileEntry {
	old := sc.d.files[p]
	if !sc.linked[p] && old.isStill(int(sc.top.Fd()), sc.policy) {
		return old
	}
	st, err := sc.stat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unread(p, err)
	}
	id := idOf(st)
	// What a link leads through may change without the file.
	if sc.linked[p] {
		f, err := openTrustedBelow(sc.top, p)
		if err != nil {
			return badFile(p, fileID{}, "the file can't be relied on: %v", linkHint(err))
		}
		f.Close()
	}
	if old != nil && old.id == id && old.policy == sc.policy && !old.unsettled {
		return old
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return badFile(p, id, "expected a regular file; remove it or rename it to something without a manifest's extension")
	}
	f, err := sc.open(p, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, unix.EAGAIN) {
		return sc.unsettled(p, old, id)
	}
	if err != nil {
		return unread(p, err)
	}
	defer f.Close()
	// Of the file that is read, whatever is at its path by now.
	if err := unix.Fstat(int(f.Fd()), st); err != nil {
		return unread(p, err)
	}
	if err := judge("the file", st, true); err != nil {
		return badFile(p, id, "%v", err)
	}
	release, writing := lease(f, st, sc.d.opts.Settle)
	if writing {
		return sc.unsettled(p, old, id)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	now, serr := sc.stat(p)
	release()
	if err != nil {
		return unread(p, err)
	}
	// Replaced, or where there are no leases written, while it was read.
	if serr != nil || now.Size != st.Size || now.Mtim != st.Mtim || now.Ino != st.Ino {
		return sc.unsettled(p, old, id)
	}
	entry := &fileEntry{path: p, id: id, policy: sc.policy}
	docs, problems := decode(p, b, sc.snap.Policy, sc.d.opts.Known)
	entry.problems = problems
	for _, doc := range docs {
		if doc.Sandbox != nil {
			entry.entries = append(entry.entries, Entry{Sandbox: doc.Sandbox, Hash: doc.hash, Source: doc.Position, Digest: doc.digest})
		}
	}
	return entry
}

func idOf(st *unix.Stat_t) fileID {
	return fileID{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// isStill says that the file of an entry is the one it was, in one system call:
// most of ten thousand files are, each time that one of them changes. What else it
// may be is found out with more care.
func (e *fileEntry) isStill(top int, policy string) bool {
	var st unix.Stat_t
	return e != nil && !e.unsettled && e.policy == policy && unix.Fstatat(top, e.path, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && idOf(&st) == e.id
}

func badFile(p string, id fileID, format string, args ...any) *fileEntry {
	return &fileEntry{path: p, id: id, problems: []Problem{{Position: Position{File: p}, Message: fmt.Sprintf(format, args...)}}}
}

// unread is a file that the system refuses to read. It is tried again, since it
// looks the same when the system does not refuse any more.
func unread(p string, err error) *fileEntry {
	e := badFile(p, fileID{}, "the file can't be read: %v", linkHint(err))
	e.unread = true
	return e
}

// unsettled keeps what a file said before for as long as it is being written.
func (sc *scanner) unsettled(p string, old *fileEntry, id fileID) *fileEntry {
	e := &fileEntry{path: p, id: id, policy: sc.policy, unsettled: true}
	if old == nil {
		return e
	}
	e.entries, e.problems = old.entries, old.problems
	if old.policy == sc.policy || sc.snap.Policy == nil {
		return e
	}
	// What it said before was judged by another policy.
	e.entries = nil
	for _, old := range old.entries {
		errs := sc.snap.Policy.Check(old.Sandbox)
		for _, err := range errs {
			e.problems = append(slices.Clip(e.problems), Problem{Position: old.Source, Name: old.Sandbox.Metadata.Name, Field: err.Field, Reason: ReasonPolicyDenied, Message: err.Message})
		}
		if len(errs) == 0 {
			e.entries = append(e.entries, old)
		}
	}
	return e
}

// lease keeps writers out of a file while it is read. writing says that
// somebody has it open for writing: the kernel tells, exactly, by refusing a
// read lease. Where there are no leases (another owner, a network filesystem) a
// file is taken to be written as long as its last change is not settle ago.
func lease(f *os.File, st *unix.Stat_t, settle time.Duration) (release func(), writing bool) {
	fd := f.Fd()
	_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK)
	switch {
	case err == nil:
		// A writer that comes meanwhile waits in its open until this.
		return func() { _, _ = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK) }, false
	case errors.Is(err, unix.EAGAIN):
		return nil, true
	}
	age := time.Since(time.Unix(st.Mtim.Unix()))
	return func() {}, age >= 0 && age < settle
}
