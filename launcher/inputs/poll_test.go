// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"context"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// polled is a host whose files a Poll looks at, in the time of synctest.
type polled struct {
	mu    sync.Mutex
	files map[string]File
	takes time.Duration // each look
	looks int
}

func (h *polled) look(paths []string) map[string]File {
	h.mu.Lock()
	takes := h.takes
	h.looks++
	h.mu.Unlock()
	time.Sleep(takes) // in a bubble: it is the clock that goes on
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]File{}
	for _, p := range paths {
		out[p] = h.files[p]
	}
	return out
}

// since is how many looks there were since it was asked last.
func (h *polled) since() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.looks
	h.looks = 0
	return n
}

func (h *polled) set(path string, f File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files = maps.Clone(h.files)
	h.files[path] = f
}

// A change is told within the time that the documentation promises, once, and nothing
// else is: not that a file is new, the same, or on a filesystem that does not answer.
func TestPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &polled{files: map[string]File{"/a": {ID: "1"}, "/b": {Missing: true}}}
		p := NewPoll(h.look)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		told := func() bool {
			select {
			case <-p.Changes():
				return true
			default:
				return false
			}
		}
		after := func(d time.Duration, want bool, what string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := told(); got != want {
				t.Errorf("%s: told %v", what, got)
			}
		}
		after(time.Hour, false, "no files")
		if n := h.since(); n != 0 {
			t.Errorf("%d looks at no file", n)
		}
		p.Want(map[string]File{"/a": {ID: "1"}, "/b": {Missing: true}})
		after(time.Minute, false, "the same files")
		if n := h.since(); n < 25 || n > 35 {
			t.Errorf("%d looks in a minute", n)
		}
		h.set("/a", File{ID: "2"})
		after(pollEvery, true, "another file")
		after(time.Minute, false, "the same since")
		h.set("/b", File{ID: "1"})
		after(pollEvery, true, "a file that came")
		h.set("/b", File{Problem: doesNotAnswer})
		after(time.Minute, false, "one that hangs")
		h.set("/b", File{ID: "1"})
		after(pollEvery, true, "one that answers again")
		h.set("/c", File{ID: "1"})
		p.Want(map[string]File{"/a": {ID: "2"}, "/c": {ID: "1"}})
		after(time.Minute, false, "another list")
		// A change between the pass that found a file and the next look is one.
		time.Sleep(pollEvery / 2)
		h.set("/d", File{ID: "2"})
		p.Want(map[string]File{"/a": {ID: "2"}, "/c": {ID: "1"}, "/d": {ID: "1"}})
		after(pollEvery, true, "changed before its first look")
		h.set("/c", File{ID: "2"})
		p.Want(map[string]File{"/a": {ID: "2"}, "/c": {ID: "2"}, "/d": {ID: "2"}})
		after(time.Minute, false, "which the pass has seen")
		h.set("/b", File{ID: "3"})
		after(time.Minute, false, "a file that is not wanted any more")
		// What takes long is looked at seldom.
		h.mu.Lock()
		h.takes = 200 * time.Millisecond
		h.mu.Unlock()
		h.since()
		after(time.Minute, false, "slow files")
		if n := h.since(); n > 8 {
			t.Errorf("%d looks of 200 ms in a minute", n)
		}
		p.Want(nil)
		time.Sleep(time.Minute)
		h.since()
		time.Sleep(time.Hour)
		if n := h.since(); n != 0 {
			t.Errorf("%d looks at no file any more", n)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The differences that count.
func TestPollDiffer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		was, now File
		want     bool
	}{
		"same": {File{ID: "1"}, File{ID: "1"}, false}, "changed": {File{ID: "1"}, File{ID: "2"}, true}, "gone": {File{ID: "1"}, File{Missing: true}, true},
		"came": {File{Missing: true}, File{ID: "1"}, true}, "hangs": {File{ID: "1"}, File{Problem: "x"}, false}, "answers": {File{Problem: "x"}, File{ID: "1"}, true},
	} {
		if got := differ(map[string]File{"/a": c.was}, map[string]File{"/a": c.now}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if differ(nil, map[string]File{"/a": {ID: "1"}}) || differ(map[string]File{"/a": {ID: "1"}}, nil) {
		t.Error("a list is a change")
	}
	if paths, _ := NewPoll(nil).wanted(); paths != nil {
		t.Error("it begins with files")
	}
}
