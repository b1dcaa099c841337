// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"

	"sandboxctl.dev/launcher/image"
)

// watchFiles calls changed when one of some files may have changed, also when it, or the
// directory it is in, is not there yet. What is beside it is nobody's business: a log
// that is written there would wake its own writer for ever.
func watchFiles(ctx context.Context, paths []string, changed func(), warn func(error)) error {
	fw, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer fw.Close()
	w := &fileWatch{fs: fw, paths: paths}
	if err := w.arm(); err != nil {
		return err
	}
	changed() // what happened before the watch was there
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-fw.Events:
			if !w.concerns(ev.Name) {
				continue
			}
			// The directory may be there only now, or a link lead elsewhere.
			err = w.arm()
			changed()
		case err = <-fw.Errors:
			changed()
		}
		if err != nil {
			warn(err)
		}
	}
}

// fileWatch is a watch on files and on the links through which their paths lead.
type fileWatch struct {
	fs    *fsnotify.Watcher
	paths []string
	way   []string // the files, and what is on the way to them
}

// maxWay bounds the links on the way, as the kernel does.
const maxWay = 40

// arm watches the directories in which the files and the links on the way to them are, or
// where these directories will be.
func (w *fileWatch) arm() error {
	w.way = nil
	for _, p := range w.paths {
		w.way = append(w.way, stepsTo(p)...)
	}
	needed := map[string]bool{}
	for _, step := range w.way {
		dir, err := w.add(filepath.Dir(step))
		if err != nil {
			return err
		}
		needed[dir] = true
	}
	for _, dir := range w.fs.WatchList() {
		if !needed[dir] {
			_ = w.fs.Remove(dir) // it may be gone already
		}
	}
	return nil
}

// add watches a directory or, while it is missing, the nearest one above it.
func (w *fileWatch) add(dir string) (string, error) {
	for {
		at, missing := dir, ""
		err := w.fs.Add(at)
		for ; err != nil && at != "/"; err = w.fs.Add(at) {
			at, missing = filepath.Dir(at), at // it may come: its parent tells
		}
		if err != nil || missing == "" {
			return at, err
		}
		if _, err := os.Lstat(missing); err != nil {
			return at, nil
		}
		// It came before its parent was watched.
	}
}

// concerns says whether an event is about one of the files, a link on the way to it, or a
// directory above one of these.
func (w *fileWatch) concerns(name string) bool {
	for _, step := range w.way {
		if step == name || strings.HasPrefix(step, strings.TrimSuffix(name, "/")+"/") {
			return true
		}
	}
	return false
}

// stepsTo are a path, the links through which it leads, each by a path without links
// before it, and what it leads to.
func stepsTo(path string) []string {
	steps := []string{path}
	at, todo := "/", strings.Split(filepath.Clean(path), "/")
	for links := 0; len(todo) > 0; {
		next := filepath.Join(at, todo[0])
		todo = todo[1:]
		target, err := os.Readlink(next)
		if err != nil {
			at = next
			continue
		}
		steps = append(steps, next)
		if links++; links > maxWay {
			return steps
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return append(steps, at)
}

// watchRequests wakes the loop when an operator has left a request. Without a
// watch they are found at the next resync.
func (d *daemon) watchRequests(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Add(d.store.RequestsDir()); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-w.Events:
			// Not of temporary files, nor when one has been carried out.
			if name := filepath.Base(ev.Name); !strings.HasPrefix(name, ".") && filepath.Ext(name) == ".json" && !ev.Has(fsnotify.Remove) {
				d.loop.Wake()
			}
		case err := <-w.Errors:
			d.log.Warn("requests may be noticed late", "err", fmt.Sprint(err))
			d.loop.Wake()
		}
	}
}

// watchPolicy wakes the loop when the file of the policy may have changed, or one about
// registries, whose files of certificates no sandbox may write. Without a watch that is noticed
// at the next resync.
func (d *daemon) watchPolicy(ctx context.Context) error {
	paths := []string{d.policy.Options().Path, image.RegistriesPath}
	if d.info.Registries != "" {
		paths = append(paths, d.info.Registries)
	}
	return watchFiles(ctx, paths, d.loop.Wake, func(err error) {
		d.log.Warn("a change of the host policy or of the file about registries may be noticed late", "err", err)
	})
}
