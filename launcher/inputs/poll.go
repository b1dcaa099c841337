// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// pollEvery is how often files are looked at. There are notifications of changes, but
	// not on network filesystems, not through a mount that comes later, and making them
	// may hang: a look costs two system calls for each file.
	pollEvery = 2 * time.Second
	// pollRest is how many times as long as a look took it is rested after it: thousands
	// of files, or slow ones, take a part of one processor at most.
	pollRest = 50
	// pollSlowest bounds the rest.
	pollSlowest = 30 * time.Second
)

// Poll looks at files again and again, and tells when one has changed. As long as there
// are no files it does nothing.
type Poll struct {
	// Look looks at files, without waiting for those that do not answer.
	Look func(paths []string) map[string]File

	mu      sync.Mutex
	paths   []string        // sorted
	seen    map[string]File // by the last pass, nil once it was compared with
	news    chan struct{}
	changes chan struct{}
}

// NewPoll returns one without files.
func NewPoll(look func(paths []string) map[string]File) *Poll {
	return &Poll{Look: look, news: make(chan struct{}, 1), changes: make(chan struct{}, 1)}
}

// Changes receives when a file may be another one than before.
func (p *Poll) Changes() <-chan struct{} { return p.changes }

// Want says what a pass has found of the files to look at from now on. A change is what
// differs from that: one between the pass and the first look would be missed otherwise.
func (p *Poll) Want(seen map[string]File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = seen
	if paths := slices.Sorted(maps.Keys(seen)); !slices.Equal(p.paths, paths) {
		p.paths = paths
		signal(p.news)
	}
}

// wanted are the files to look at, and what a pass has found of them since it was asked.
func (p *Poll) wanted() (paths []string, seen map[string]File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen, p.seen = p.seen, nil
	return p.paths, seen
}

// Run looks until ctx is done.
func (p *Poll) Run(ctx context.Context) error {
	was := map[string]File{}
	for {
		rest := time.Duration(-1) // until there are files
		if paths, seen := p.wanted(); len(paths) > 0 {
			began := time.Now()
			maps.Copy(was, seen)
			now := p.Look(paths)
			rest = min(max(pollEvery, pollRest*time.Since(began)), pollSlowest)
			if differ(was, now) {
				signal(p.changes)
			}
			was = now
		}
		if !p.sleep(ctx, rest) {
			return nil
		}
	}
}

// sleep waits for a time, or if it is below zero until other files are wanted. It returns
// false at the end of ctx.
func (p *Poll) sleep(ctx context.Context, d time.Duration) bool {
	if d < 0 {
		select {
		case <-ctx.Done():
			return false
		case <-p.news:
			return true
		}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// differ says whether a file that was there before is another one, or can be read again.
// One that hangs for a moment has not changed.
func differ(was, now map[string]File) bool {
	for p := range maps.Keys(now) {
		if old, known := was[p]; known && old != now[p] && now[p].Problem == "" {
			return true
		}
	}
	return false
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
