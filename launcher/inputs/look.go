// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"cmp"
	"errors"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// File is what is known of a file: needs.File has the same fields.
type File struct {
	ID string
	// Unfit says that Problem is the file's own, and not that of a look that took too long.
	Missing, Unfit bool
	Problem        string
	// Lacks is for documents.
	Lacks string
}

const (
	// patience is how long a pass waits for the files that it looks at, all together.
	patience = 100 * time.Millisecond
	// workers look at files at the same time. Each that hangs is a thread of this
	// program, which ends the program where there are 10000: at most mostHanging wait
	// for filesystems that do not answer, and mostInDirectory for one directory.
	workers         = 32
	mostHanging     = 1000
	mostInDirectory = 8
)

// What is said of files that could not be looked at.
const (
	doesNotAnswer = "its filesystem does not answer"
	notYet        = "it was not looked at in time; too many files are slow, or on filesystems that do not answer"
)

// Looker looks at files without waiting for filesystems that do not answer. It is for
// one caller at a time.
type Looker struct {
	mu sync.Mutex
	// busy are the paths that a worker looks at, in how many it does of each directory.
	busy map[string]bool
	in   map[string]int
	// first is the path to begin with: there was no time for it.
	first string
	wait  time.Duration                            // patience
	look  func(path string) (id string, err error) // lookAt
}

// look is one call of Look. The mutex of the Looker guards it.
type look struct {
	todo  []string
	over  bool
	found map[string]File
}

// Look looks at files. The paths are sorted.
func (l *Looker) Look(paths []string) map[string]File {
	l.mu.Lock()
	if l.busy == nil {
		l.busy, l.in, l.wait = map[string]bool{}, map[string]int{}, cmp.Or(l.wait, patience)
	}
	if l.look == nil {
		l.look = lookAt
	}
	now := &look{found: make(map[string]File, len(paths))}
	from, _ := slices.BinarySearch(paths, l.first)
	for i := range paths {
		p := paths[(from+i)%len(paths)]
		if l.busy[p] || l.in[path.Dir(p)] >= mostInDirectory {
			now.found[p] = File{Problem: doesNotAnswer}
			continue // a worker waits for it, and not one more for each pass
		}
		now.todo = append(now.todo, p)
	}
	n := max(0, min(workers, len(now.todo), mostHanging-len(l.busy)))
	l.mu.Unlock()
	done := make(chan struct{}, n)
	for range n {
		go func() {
			l.work(now)
			done <- struct{}{}
		}()
	}
	end := time.NewTimer(l.wait)
	defer end.Stop()
	for range n {
		select {
		case <-done:
			continue
		case <-end.C:
		}
		break
	}
	return l.finish(now, paths)
}

// finish is what was found of the paths.
func (l *Looker) finish(now *look, paths []string) map[string]File {
	l.mu.Lock()
	defer l.mu.Unlock()
	now.over, l.first = true, ""
	if len(now.todo) > 0 {
		l.first = now.todo[0]
	}
	for _, p := range now.todo {
		now.found[p] = File{Problem: notYet}
	}
	out := maps.Clone(now.found) // a worker that hangs may write there
	for _, p := range paths {
		if _, ok := out[p]; !ok {
			out[p] = File{Problem: doesNotAnswer}
		}
	}
	return out
}

// work looks at one file after the other until it is over.
func (l *Looker) work(now *look) {
	for {
		p, ok := l.take(now)
		if !ok {
			return
		}
		id, err := l.look(p)
		f := File{ID: id}
		switch {
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
			f.Missing = true
		case err != nil:
			f.Problem, f.Unfit = err.Error(), true
		}
		l.mu.Lock()
		now.found[p] = f
		delete(l.busy, p)
		if dir := path.Dir(p); l.in[dir] > 1 {
			l.in[dir]--
		} else {
			delete(l.in, dir)
		}
		l.mu.Unlock()
	}
}

func (l *Looker) take(now *look) (p string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.over || len(now.todo) == 0 {
		return "", false
	}
	p, now.todo = now.todo[0], now.todo[1:]
	l.busy[p] = true
	l.in[path.Dir(p)]++
	return p, true
}
