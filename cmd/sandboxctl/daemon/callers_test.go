// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

// orphan is the manifest of a sandbox whose caller is gone.
func orphan(t *testing.T, name string) desired.Entry {
	t.Helper()
	text, err := oneoff.Annotate(name, process.Identity{PID: 7, StartTime: 1, BootID: "of another boot"})
	if err != nil {
		t.Fatal(err)
	}
	return desired.Entry{
		Sandbox: &desired.Sandbox{Metadata: desired.Metadata{Name: name, Annotations: map[string]string{oneoff.Annotation: text}}},
		Source:  desired.Position{File: desired.OwnFile(name)},
	}
}

// A daemon that has just started knows the caller of a manifest that is not valid, as under a new
// host policy, from the record. A manifest that is not in the directory any more has none.
func TestCallersOnRecord(t *testing.T) {
	t.Parallel()
	denied, deleted, unusable := orphan(t, "denied"), orphan(t, "deleted"), desired.Problem{Position: desired.Position{File: "unusable.yaml"}, Name: "unusable"}
	c := newCallers(nil, slog.New(slog.DiscardHandler))
	c.want(&reconcile.Input{
		Desired:  &desired.Snapshot{Problems: []desired.Problem{{Position: denied.Source, Name: "denied"}, unusable}},
		LastGood: map[string]*desired.Entry{"denied": &denied, "deleted": &deleted, "unusable": nil},
	})
	if now := *c.now.Load(); len(now) != 1 || now["denied"].PID != 7 {
		t.Errorf("callers are %+v", now)
	}
}

// A sandbox that can't be removed is tried less and less often, and told once.
func TestCallersInVain(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	c := newCallers(nil, slog.New(slog.NewTextHandler(&log, nil)))
	n, result := 0, error(nil)
	c.remove = func(context.Context, string, process.Identity) (bool, error) { n++; return false, result }
	gone := orphan(t, "gone")
	in := &reconcile.Input{Desired: &desired.Snapshot{Entries: []desired.Entry{gone}}}
	c.want(in)
	last := time.Duration(0)
	for try := 1; try <= 20; try++ {
		c.look(t.Context())
		c.look(t.Context()) // too early
		left := time.Until(c.tried["gone"].next)
		if n != try || left > c.most || left < last-time.Second || try == 1 && left > c.every {
			t.Fatalf("%d tries after %d looks that were due, the next one in %s", n, try, left)
		}
		last = left
		c.tried["gone"].next = time.Time{}
		if told := strings.Count(log.String(), "not removed yet"); told != min(1, max(0, try-untold)) {
			t.Errorf("after %d tries it is told %d times:\n%s", try, told, log.String())
		}
	}
	if last < c.most-time.Second {
		t.Errorf("the last try is %s before the next one", last)
	}
	// Another reason is news.
	result = errors.New("the disk is full")
	for range 2 {
		c.look(t.Context())
		c.tried["gone"].next = time.Time{}
	}
	if strings.Count(log.String(), "not removed yet") != 2 || strings.Count(log.String(), "the disk is full") != 1 {
		t.Errorf("the log is\n%s", log.String())
	}
	// What is gone is forgotten.
	c.want(&reconcile.Input{Desired: &desired.Snapshot{}})
	c.look(t.Context())
	if len(c.tried) > 0 {
		t.Errorf("left are %+v", c.tried)
	}
}

// Only sandboxes whose caller is gone are removed, again and again while that fails.
func TestCallers(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	removed := make(chan string)
	tries := 0
	c := newCallers(nil, slog.New(slog.DiscardHandler))
	c.every = time.Millisecond
	c.remove = func(ctx context.Context, name string, _ process.Identity) (bool, error) {
		if tries++; tries < 3 {
			return false, errors.New("the disk is full")
		}
		select {
		case removed <- name:
		case <-ctx.Done():
		}
		return true, nil
	}
	text, _, err := (&oneoff.Options{Name: "lives"}).Manifest()
	if err != nil {
		t.Fatal(err)
	}
	docs, problems := desired.Decode("lives.yaml", text)
	if len(docs) != 1 || len(problems) > 0 {
		t.Fatal(problems)
	}
	gone := orphan(t, "gone")
	plain := desired.Entry{Sandbox: &desired.Sandbox{Metadata: desired.Metadata{Name: "plain"}}, Source: desired.Position{File: "plain.yaml"}}
	c.want(&reconcile.Input{Desired: &desired.Snapshot{Entries: []desired.Entry{plain}}})
	if len(c.there) != 0 {
		t.Error("it wakes for a sandbox that is for no process")
	}
	done := make(chan error)
	go func() { done <- c.run(ctx) }()
	lives := desired.Entry{Sandbox: docs[0].Sandbox, Source: docs[0].Position}
	c.want(&reconcile.Input{Desired: &desired.Snapshot{Entries: []desired.Entry{gone, lives, plain}}})
	for range 2 {
		if name := <-removed; name != "gone" {
			t.Errorf("%s is removed", name)
		}
	}
	// So is one whose manifest is not valid any more.
	c.want(&reconcile.Input{Desired: &desired.Snapshot{Entries: []desired.Entry{plain}, Problems: []desired.Problem{{Position: gone.Source, Name: "gone"}}}})
	for range 2 { // the first look may have been at the snapshot before
		if name := <-removed; name != "gone" {
			t.Errorf("%s is removed", name)
		}
	}
	// Nothing is left to look at.
	c.want(&reconcile.Input{Desired: &desired.Snapshot{Entries: []desired.Entry{plain}}})
	for quiet := false; !quiet; {
		select {
		case <-removed:
		case <-time.After(200 * time.Millisecond):
			quiet = true
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
