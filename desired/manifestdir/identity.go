// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
)

// Identity tells directories apart, also where one is mounted over another.
type Identity struct {
	Dev   uint64 `json:"dev,omitempty"`
	Ino   uint64 `json:"ino,omitempty"`
	Mount uint64 `json:"mount,omitempty"`
	// Birth is when it was made, in ns, 0 if its filesystem does not say: the inode
	// number of a directory that was removed is given to the next one.
	Birth int64 `json:"birth,omitempty"`
}

// Memory is what a Dir must remember across restarts of the daemon to tell a
// directory that was emptied from one that was swapped or unmounted.
type Memory struct {
	// The directory that last held a manifest.
	Identity
	BootID string `json:"bootID,omitempty"`
	// Emptied says that it was then seen empty, itself: that is its author's
	// wish, and stays so.
	Emptied bool `json:"emptied,omitempty"`
	// Dirs are the directories below it that last held a manifest, by path.
	Dirs map[string]Identity `json:"dirs,omitempty"`
	// Broken are the files that had problems at the last look, each with its
	// identity. Gone are the sandboxes whose manifests were removed since these
	// files are as they are.
	Broken []string `json:"broken,omitempty"`
	Gone   []string `json:"gone,omitempty"`
}

// Equal says whether two memories are the same.
func (m *Memory) Equal(o *Memory) bool {
	return m.Identity == o.Identity && m.BootID == o.BootID && m.Emptied == o.Emptied &&
		maps.Equal(m.Dirs, o.Dirs) && slices.Equal(m.Broken, o.Broken) && slices.Equal(m.Gone, o.Gone)
}

// maxDirs bounds the directories below the top, and with them the memory.
const maxDirs = 2000

func statDir(fd int) (Identity, error) { return statAt(fd, "", unix.AT_EMPTY_PATH) }

// statAt is statDir of what a path is, which must be a directory.
func statAt(fd int, path string, flags int) (Identity, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, path, flags, unix.STATX_INO|unix.STATX_MNT_ID|unix.STATX_BTIME, &st); err != nil {
		return Identity{}, fmt.Errorf("stat directory: %w", err)
	}
	id := Identity{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, Mount: st.Mnt_id}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.Birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return id, nil
}

// isStill compares a directory with what is remembered of it. Mount ids mean
// nothing in another boot.
func (d *Dir) isStill(was, id Identity) bool {
	return was.Dev == id.Dev && was.Ino == id.Ino && (was.Birth == id.Birth || was.Birth == 0 || id.Birth == 0) &&
		(d.memory.BootID != d.opts.BootID || was.Mount == 0 || was.Mount == id.Mount)
}

// defines says whether a file defines a sandbox, concerns whether it may.
func (e *fileEntry) defines() bool  { return len(e.entries) > 0 }
func (e *fileEntry) concerns() bool { return e.defines() || len(e.problems) > 0 || e.unsettled }

// identify compares the directory with the one that is remembered.
func (d *Dir) identify(s *desired.Snapshot, id Identity) {
	m := &d.memory
	same := d.isStill(m.Identity, id)
	in := d.index.below(".")
	switch {
	case in.defines > 0:
		// It holds manifests: whatever it was before, it is the one now. That
		// a swap took too much away is the deletion guard's to judge.
		m.Identity, m.BootID, m.Emptied = id, d.opts.BootID, false
	case m.Ino == 0 && !d.opts.Expected, same && m.Emptied:
		// Never held anything, or was emptied before by its author.
	case (same || m.Ino == 0) && in.concerns > 0:
		// What is there can't be read now.
	case same || d.opts.AllowEmpty:
		m.Identity, m.BootID, m.Emptied = id, d.opts.BootID, true
	default:
		d.incomplete(s, desired.ReasonDirectoryReplaced,
			"the manifests directory %s is not the one that was there before, and holds no manifest; no sandbox is stopped because of it: mount the disk that belongs there, or, if the directory is meant to be new, put a manifest into it with `sandboxctl apply --new-directory`", d.opts.Path)
	}
}

// identifyBelow compares the directories below the top with those that are
// remembered: a volume of manifests that is not mounted leaves an empty directory.
func (d *Dir) identifyBelow(sc *scanner, top Identity) {
	holding := func(p string) bool { return d.index.below(p).defines > 0 }
	// A tree that was replaced as a whole, by one that holds manifests, is the one
	// now with all that is below it.
	swapped := map[string]bool{"": d.memory.Ino != 0 && !d.isStill(d.memory.Identity, top) && holding(".")}
	keep := map[string]Identity{}
	now := time.Now()
	for _, p := range slices.Sorted(maps.Keys(d.memory.Dirs)) {
		was := d.memory.Dirs[p]
		if d.memory.BootID != d.opts.BootID {
			was.Mount = 0 // it means nothing in this boot
		}
		id, entered := sc.dirs[p]
		above := path.Dir(p)
		if above == "." {
			above = ""
		}
		swapped[p] = swapped[above] || entered && holding(p) && !d.isStill(was, id)
		switch {
		case holding(p) || swapped[above] || d.opts.AllowEmpty || sc.ignored(p, true):
			continue
		case entered && d.isStill(was, id):
			// Unless what is there can't be read now, or it was unmounted after it was
			// listed, which takes its files away as well.
			if d.index.below(p).concerns > 0 || sc.identity(p) != fmt.Sprint(id) {
				keep[p] = was
				d.lookAgain(now.Add(d.opts.Settle))
			}
			continue
		case !entered && !sc.there(p):
			// Removed by its author, if that lasts.
			since, waiting := d.dirMissing[p]
			if !waiting {
				since = now
				d.dirMissing[p] = now
			}
			// Longer than the absence of a manifest must last: what comes meanwhile in
			// its place, and is empty, is no evidence.
			if !(d.opts.Once && d.looks == 1) && now.Sub(since) < 2*d.opts.Settle {
				keep[p] = was
				d.lookAgain(since.Add(2 * d.opts.Settle))
			}
			continue
		}
		keep[p] = was
		if !sc.told(p) {
			sc.problem(p, "it is not the directory that was there before, and holds no manifest (not mounted, or replaced?); the sandboxes that it defined keep running: mount what belongs there, put their manifests there, or remove the directory if they are to go")
		}
	}
	for p := range d.dirMissing {
		if _, ok := keep[p]; !ok || sc.there(p) {
			delete(d.dirMissing, p)
		}
	}
	for p := range d.index.dirs {
		if p != "." && holding(p) {
			keep[p] = sc.dirs[p]
		}
	}
	if !maps.Equal(keep, d.memory.Dirs) {
		d.memory.Dirs = keep // the old one may be read by others
	}
}

// there says whether a name is in the directory, whatever it is. Only what is
// proven not to be there is not.
func (sc *scanner) there(p string) bool {
	f, err := sc.openFd(p, unix.O_PATH|unix.O_NOFOLLOW)
	if err == nil {
		_ = f.Close()
	}
	return err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR)
}

// told says whether something is wrong with a path already.
func (sc *scanner) told(p string) bool {
	return slices.ContainsFunc(sc.snap.Problems, func(x desired.Problem) bool { return x.File == p })
}
