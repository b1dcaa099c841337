// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
)

// goneTogether is how long it takes from the first file that goes away until that is
// told. An absence is believed when it has lasted (Options.Settle): if the first look
// found one of many that are removed at once, all would wait for those that were found
// by the next look.
const goneTogether = 5 * time.Millisecond

// maxLinks bounds the chain of links to the directory.
const maxLinks = 8

func (d *Dir) markDirty() {
	select {
	case d.dirty <- struct{}{}:
	default:
	}
}

func (d *Dir) notify() {
	select {
	case d.changes <- struct{}{}:
	default:
	}
}

// Run sends on Changes whenever the directory may have changed, until ctx is
// done. The kernel's notifications are only an accelerator: every PollEvery it
// looks whether the directory is still the same one, and where there are no
// notifications it sends each time. What both miss (a file changed by another
// host of a network filesystem) the reader finds when it looks without reason.
func (d *Dir) Run(ctx context.Context) error {
	w := &watch{d: d}
	defer w.close()
	defer d.notices.watch(false, nil)
	w.arm()
	// What happened before the watch was there.
	d.notify()
	poll := time.NewTicker(d.opts.PollEvery)
	defer poll.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	last := d.identity()
	var gone <-chan time.Time // when to tell of files that went away
	var told time.Time        // the time that Load asked for, when that was told
	for {
		at := d.recheckAt()
		if at.IsZero() || at.Equal(told) {
			at = time.Now().Add(24 * time.Hour)
		}
		again.Reset(time.Until(at))
		select {
		case <-ctx.Done():
			return nil
		case <-d.dirty:
			// Load has set another time to look again, or found what is not watched.
			if d.rearm.Swap(false) && !w.failed {
				w.arm()
				d.notify()
			}
		case <-again.C:
			told = at
			d.notify()
		case <-poll.C:
			now := d.identity()
			switch {
			case now != last || w.failed:
				last = now
				w.arm()
				d.notify()
			case now != d.looked(), d.lookedAtPart():
				// It was another one in between, when it was looked at; or what
				// notifications told is compared with what there is.
				d.notices.anything()
				d.notify()
			}
		case ev := <-w.events():
			// At once, but for what went away: whether a file is whole is found
			// out by Load, and a burst coalesces in the channel.
			if w.concerns(ev) {
				w.tell(ev)
				switch {
				case ev.Op != fsnotify.Remove && ev.Op != fsnotify.Rename:
					d.notify()
				case gone == nil:
					gone = time.After(goneTogether)
				}
			}
		case <-gone:
			gone = nil
			d.notify()
		case err := <-w.errors():
			// Events were lost, so anything may have changed.
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				d.setDegraded(fmt.Sprintf("watching the manifests directory: %v", err))
			}
			w.arm()
			d.notify()
		}
	}
}

// recheckAt is when Load asked to be called again, zero if it did not.
func (d *Dir) recheckAt() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.recheck
}

// lookedAtPart says whether there were looks at a part since the last one at everything.
func (d *Dir) lookedAtPart() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.glanced
}

func (d *Dir) setDegraded(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.degraded = why
}

// identity is what the path of the directory leads to now, and those below it. A
// mount over one, or its unmounting, causes no notification.
func (d *Dir) identity() string {
	top, err := os.Open(d.opts.Path)
	if err != nil {
		return err.Error()
	}
	defer top.Close()
	id, err := statDir(int(top.Fd()))
	if err != nil {
		return err.Error()
	}
	sc := &scanner{d: d, top: top}
	all := []string{fmt.Sprint(id)}
	d.mu.Lock()
	dirs := d.known()
	d.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(dirs)) {
		all = append(all, sc.identity(p))
	}
	return strings.Join(all, " ")
}

// known are the directories below the top that the last look at everything entered, and
// those that are remembered.
func (d *Dir) known() map[string]Identity {
	out := maps.Clone(d.memory.Dirs)
	if out == nil {
		out = map[string]Identity{}
	}
	for p, id := range d.whole.dirs {
		if _, remembered := out[p]; !remembered {
			out[p] = id
		}
	}
	return out
}

// looked is what identity was at the last look, as far as that is remembered.
func (d *Dir) looked() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, dirs := []string{fmt.Sprint(d.top)}, d.known()
	for _, p := range slices.Sorted(maps.Keys(dirs)) {
		all = append(all, fmt.Sprint(dirs[p]))
	}
	return strings.Join(all, " ")
}

// identity is what a path in the directory leads to now.
func (sc *scanner) identity(p string) string {
	f, err := sc.open(p, unix.O_PATH)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	id, err := statDir(int(f.Fd()))
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(id)
}

// watch is the set of kernel watches on the directory, those below it, and
// those through which its path leads.
type watch struct {
	d  *Dir
	fs *fsnotify.Watcher
	// way are the links and directories on the way to the directory. Their
	// parents are watched for them alone.
	way    map[string]bool
	top    string // the directory itself, links resolved
	dirs   map[string]Identity
	failed bool
}

// arm makes the watches again.
func (w *watch) arm() {
	w.dirs = map[string]Identity{}
	defer func() {
		if !w.failed {
			w.d.setDegraded("") // not before: nobody sees a moment in which all seemed well
		}
		w.d.notices.watch(!w.failed, w.dirs)
	}()
	w.close()
	fw, err := w.d.newWatcher()
	if err != nil {
		w.fail(err)
		return
	}
	w.fs, w.way, w.failed = fw, map[string]bool{}, false
	path := filepath.Clean(w.d.opts.Path)
	// Each link of the chain can be swapped without a word from where it
	// leads to, so the directory it is in is watched too.
	for range maxLinks {
		w.addParent(path)
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	w.top = path
	w.addTree(path)
}

func (w *watch) addParent(path string) {
	for {
		dir := filepath.Dir(path)
		err := w.fs.Add(dir)
		if err == nil {
			w.way[path] = true
			return
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == path {
			w.fail(err)
			return
		}
		// The parent is missing as well: watch for it to come.
		path = dir
	}
}

func (w *watch) addTree(path string) {
	err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if !e.IsDir() {
			return nil
		}
		if p != path && (strings.HasPrefix(e.Name(), ".") || w.d.passedOver(strings.TrimPrefix(p, path+"/"))) {
			return fs.SkipDir
		}
		err = w.fs.Add(p)
		if p == path || err != nil {
			if p != path && errors.Is(err, fs.ErrNotExist) {
				return fs.SkipDir // it went away just now, and no other one with it
			}
			return err
		}
		if id, err := statAt(unix.AT_FDCWD, p, unix.AT_SYMLINK_NOFOLLOW); err == nil {
			w.dirs[strings.TrimPrefix(p, path+"/")] = id
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.fail(err)
	}
}

// fail falls back to polling.
func (w *watch) fail(err error) {
	w.failed = true
	w.d.setDegraded(fmt.Sprintf("changes are noticed within %s only: %v (see fs.inotify in sysctl)", w.d.opts.PollEvery, err))
}

// concerns says whether an event is about the directory or the way to it, and
// not about its neighbours.
func (w *watch) concerns(ev fsnotify.Event) bool {
	base := filepath.Base(ev.Name)
	if ev.Op == fsnotify.Write && !IsManifestName(base) && base != desired.IgnoreFile && !w.d.links.Load() {
		return false // a log, perhaps the one of this program
	}
	if strings.HasPrefix(base, ".") && !strings.HasPrefix(base, "..") && base != desired.IgnoreFile && !w.way[ev.Name] && !w.d.links.Load() {
		return false // what an editor or `apply` makes beside a manifest, to rename it
	}
	return w.way[ev.Name] || ev.Name == w.top || strings.HasPrefix(ev.Name, w.top+"/")
}

// tell notes what an event is about.
func (w *watch) tell(ev fsnotify.Event) {
	p, below := strings.CutPrefix(ev.Name, w.top+"/")
	switch {
	case w.mustRearm(ev):
		w.arm()
	case below:
		w.d.notices.path(p)
	default:
		w.d.notices.anything()
	}
}

// mustRearm says whether an event changed what must be watched: something on
// the way to the directory, the directory itself, or one below it.
func (w *watch) mustRearm(ev fsnotify.Event) bool {
	if !ev.Has(fsnotify.Create) && !ev.Has(fsnotify.Rename) && !ev.Has(fsnotify.Remove) {
		return false
	}
	if w.way[ev.Name] || ev.Name == w.top {
		return true
	}
	base := filepath.Base(ev.Name)
	if strings.HasPrefix(base, ".") {
		return strings.HasPrefix(base, "..") || base == desired.IgnoreFile // ..data
	}
	info, err := os.Lstat(ev.Name)
	if err != nil {
		p := strings.TrimPrefix(ev.Name, w.top+"/")
		return w.d.notices.isWatched(p) || w.d.links.Load() && filepath.Ext(base) == "" // perhaps a link to a directory
	}
	return !info.Mode().IsRegular()
}

func (w *watch) events() <-chan fsnotify.Event {
	if w.fs == nil {
		return nil
	}
	return w.fs.Events
}

func (w *watch) errors() <-chan error {
	if w.fs == nil {
		return nil
	}
	return w.fs.Errors
}

func (w *watch) close() {
	if w.fs != nil {
		// Nothing to do about a watcher that can't be closed.
		_ = w.fs.Close()
		w.fs = nil
	}
}
