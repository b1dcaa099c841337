// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/desired"
)

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
	b, err := oneoff.Annotate("gone", process.Identity{PID: 7, StartTime: 1, BootID: "of another boot"})
	if err != nil {
		t.Fatal(err)
	}
	gone := desired.Entry{
		Sandbox: &desired.Sandbox{Metadata: desired.Metadata{Name: "gone", Annotations: map[string]string{oneoff.Annotation: b}}},
		Source:  desired.Position{File: "gone.yaml"},
	}
	plain := desired.Entry{Sandbox: &desired.Sandbox{Metadata: desired.Metadata{Name: "plain"}}, Source: desired.Position{File: "plain.yaml"}}
	c.want(&desired.Snapshot{Entries: []desired.Entry{plain}})
	if len(c.there) != 0 {
		t.Error("it wakes for a sandbox that is for no process")
	}
	done := make(chan error)
	go func() { done <- c.run(ctx) }()
	lives := desired.Entry{Sandbox: docs[0].Sandbox, Source: docs[0].Position}
	c.want(&desired.Snapshot{Entries: []desired.Entry{gone, lives, plain}})
	for range 2 {
		if name := <-removed; name != "gone" {
			t.Errorf("%s is removed", name)
		}
	}
	// So is one whose manifest is not valid any more.
	c.want(&desired.Snapshot{Entries: []desired.Entry{plain}, Problems: []desired.Problem{{Position: gone.Source, Name: "gone"}}})
	for range 2 { // the first look may have been at the snapshot before
		if name := <-removed; name != "gone" {
			t.Errorf("%s is removed", name)
		}
	}
	// Nothing is left to look at.
	c.want(&desired.Snapshot{Entries: []desired.Entry{plain}})
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
