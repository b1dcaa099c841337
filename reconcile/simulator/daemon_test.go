// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/manifestdir"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/view"
)

// daemon is the running one: the real loop over the models.
type daemon struct {
	h      *host
	p      *program
	t      *task
	store  *store
	source *source
	info   actual.DaemonInfo
	memory manifestdir.Memory
	// unswept says that temporary files were left that may be nobody's.
	unswept bool
}

// startDaemon starts one. It does nothing before it is told to.
func (h *host) startDaemon() {
	p, ctx := h.newProgram("daemon")
	h.daemon = p
	p.main = newTask(p, "start")
	go func() {
		defer close(p.done)
		p.err = h.runDaemon(ctx, p)
	}()
}

func (h *host) newProgram(name string) (*program, context.Context) {
	ctx, cancel := context.WithCancel(context.Background())
	return &program{name: name, cancel: cancel, done: make(chan struct{}), changes: make(chan struct{}, 1)}, ctx
}

// runDaemon makes the calls of the daemon command.
func (h *host) runDaemon(ctx context.Context, p *program) error {
	h.park(p.main, nil, time.Time{})
	s, err := h.openStore()
	if err != nil {
		return err
	}
	if _, err := s.SweepTrash(); err != nil && p.dead {
		return err
	}
	busy := 0
	if !h.is("temps-not-swept") {
		if busy, err = s.SweepTemps(); err != nil && p.dead {
			return err
		}
	}
	list, err := s.List()
	if err != nil {
		return err
	}
	d := &daemon{h: h, p: p, store: s, t: newTask(p, "loop")}
	d.t.loop, d.unswept = true, busy > 0
	d.source = &source{h: h, t: d.t, files: map[string]*manifestText{}, seen: map[string]bool{}, missing: map[string]time.Time{}, expected: len(list.Records)+len(list.Quarantined) > 0}
	opts := loop.Options{}
	if old, _, err := s.DaemonInfo(); err == nil && old != nil {
		opts.Removals = old.Removals
		if err := json.Unmarshal(old.Memory, &d.source.memory); err != nil {
			return err
		}
		d.memory = d.source.memory
	}
	if p.dead {
		return errDead
	}
	p.observer = &observer{h, p, actual.NewObserverOf(s.Store, h.processes())}
	p.main = d.t
	h.runs(d.t)
	opts.View = &view.View{Source: d.source, Observer: p.observer, Policy: reconcile.DefaultPolicy(), Boot: h.sinceBoot, Files: h.files, Image: func(_ context.Context, ref string) string { return h.images.find(ref) }}
	opts.Requests = d
	opts.Launcher = &launcher{h: h, p: p, store: s}
	opts.Puller = &puller{h, p}
	h.check.line.Reset()
	opts.Workers = 2
	opts.Wakes = []<-chan struct{}{p.changes}
	opts.OnPass = func(in reconcile.Input, plan reconcile.Plan) {
		if p.dead {
			return
		}
		h.stats.Passes++
		h.check.passes++
		h.check.plan(h, &in, &plan)
		d.remember(in.Removals)
		if d.unswept {
			busy, err := s.SweepTemps()
			d.unswept = busy > 0 || err != nil
		}
	}
	return loop.New(opts).Run(ctx)
}

// DropRequest implements loop.Requests.
func (d *daemon) DropRequest(r actual.Request) error { return d.store.DropRequest(r) }

// remember makes the calls of daemon.remember.
func (d *daemon) remember(removals []time.Time) {
	m := d.source.memory
	if m.Equal(&d.memory) && d.info.Memory != nil && len(removals) == len(d.info.Removals) {
		return
	}
	b, err := json.Marshal(m)
	if err != nil {
		d.h.breach("encode memory: %v", err)
		return
	}
	d.info.Removals, d.info.Memory = removals, b
	if err := d.store.PutDaemonInfo(&d.info); err == nil {
		d.memory = m
	}
}

// source makes the calls of manifestdir.Dir.
type source struct {
	h        *host
	t        *task
	files    map[string]*manifestText
	memory   manifestdir.Memory
	expected bool
	first    time.Time
	seen     map[string]bool
	missing  map[string]time.Time
}

const settle = 100 * time.Millisecond

// Load implements reconcile.Source.
func (s *source) Load(context.Context) (*desired.Snapshot, error) {
	s.h.fence()
	snap := &desired.Snapshot{Complete: true}
	incomplete := func(reason string) {
		if snap.Complete {
			snap.Complete, snap.Reason, snap.Message = false, reason, reason
		}
	}
	if s.t.p.dead {
		return nil, errDead
	}
	s.h.check.loadBegins(s.h)
	dir, err := s.scan()
	if s.t.p.dead {
		return nil, errDead
	}
	switch {
	case missing(err):
		incomplete(desired.ReasonDirectoryMissing)
	case err != nil:
		incomplete(desired.ReasonDirectoryUnreadable)
	default:
		s.identify(dir, incomplete)
		s.resolve(snap, incomplete)
	}
	if err != nil || snap.Reason == desired.ReasonDirectoryReplaced && !s.h.is("incomplete-is-complete") {
		s.first = time.Time{} // nothing is missing from a directory that is away; when it is back, it is new
	} else {
		s.settle(snap, incomplete)
	}
	if s.h.is("incomplete-is-complete") {
		snap.Complete, snap.Reason, snap.Message = true, "", ""
	}
	return snap, nil
}

func (s *source) scan() (*inode, error) {
	at := s.h.mounted
	names := []string(nil)
	err := s.h.call(s.t, reads, "open manifests", func(bool) error {
		if at == nil {
			return errNoDir
		}
		return nil
	})
	if err == nil {
		names, err = (&dir{h: s.h, n: at}).Names(0)
	}
	if err != nil {
		return nil, err
	}
	files := map[string]*manifestText{}
	for _, n := range names {
		if n[0] == '.' {
			continue
		}
		f, err := s.h.lookup(at, n)
		switch {
		case missing(err):
			continue
		case err != nil:
			files[n] = &manifestText{problems: []desired.Problem{{Position: desired.Position{File: n}, Message: err.Error()}}}
			continue
		}
		files[n] = decodeManifest(n, f.data)
	}
	s.files = files
	if s.h.mounted != at {
		return nil, errors.New("it was replaced")
	}
	return at, nil
}

var errNoDir = fmt.Errorf("open manifests: %w", unix.ENOENT)

func (s *source) identify(dir *inode, incomplete func(string)) {
	m := &s.memory
	same := m.Ino == dir.id
	switch {
	case len(s.files) > 0:
		*m = manifestdir.Memory{Identity: manifestdir.Identity{Ino: dir.id}, BootID: s.h.boot}
	case m.Ino == 0 && !s.expected, same && m.Emptied:
	case same:
		*m = manifestdir.Memory{Identity: manifestdir.Identity{Ino: dir.id}, BootID: s.h.boot, Emptied: true}
	default:
		incomplete(desired.ReasonDirectoryReplaced)
	}
}

func (s *source) resolve(snap *desired.Snapshot, incomplete func(string)) {
	for _, n := range manifestNames {
		f := s.files[n+".yaml"]
		if f == nil {
			continue
		}
		snap.Problems = append(snap.Problems, f.problems...)
		snap.Entries = append(snap.Entries, f.entries...)
	}
	if len(snap.Problems) > 0 {
		incomplete(desired.ReasonInvalidManifests)
	}
}

func (s *source) settle(snap *desired.Snapshot, incomplete func(string)) {
	now := time.Now()
	if s.first.IsZero() {
		s.first = now
	}
	again := time.Duration(-1)
	wait := func(left time.Duration) {
		incomplete(desired.ReasonUnsettled)
		if again < 0 || left < again {
			again = left
		}
	}
	if left := settle - now.Sub(s.first); left > 0 {
		wait(left)
	}
	present := map[string]bool{}
	for i := range snap.Entries {
		n := snap.Entries[i].Sandbox.Metadata.Name
		present[n] = true
		delete(s.missing, n)
	}
	for _, p := range snap.Problems {
		if p.Name != "" {
			present[p.Name] = true
		} else if !s.h.is("nameless-is-nobody") {
			present["/"+p.File] = true
		}
	}
	holds := func(n string) bool { return n[0] == '/' && s.files[n[1:]] != nil }
	for n := range s.seen {
		if holds(n) {
			present[n] = true
		}
		if _, waiting := s.missing[n]; !present[n] && !waiting {
			s.missing[n] = now
		}
	}
	s.seen = present
	for n, since := range s.missing {
		switch left := settle - now.Sub(since); {
		case present[n] || holds(n):
			delete(s.missing, n)
		case left > 0 && !s.h.is("absence-seen-once"):
			wait(left)
		default:
			delete(s.missing, n)
		}
	}
	if again >= 0 {
		// A nanosecond beside every other timer: two that fire at once would
		// have Go choose which is first.
		s.h.wakeAt = now.Add(again + time.Nanosecond)
	}
}

// command runs one command of a user: f, as another program.
func (h *host) command(what, name string, f func(t *task) error) {
	h.cliN++
	p, _ := h.newProgram(fmt.Sprintf("%s#%d", what, h.cliN))
	h.clis = append(h.clis, p)
	h.check.busy[name] = true
	t := newTask(p, what+" "+name)
	go func() {
		defer close(p.done)
		h.park(t, nil, time.Time{})
		p.err = f(t)
	}()
}

// collectCommands forgets the commands that have ended.
func (h *host) collectCommands() {
	left := h.clis[:0]
	for _, p := range h.clis {
		select {
		case <-p.done:
			h.exit(p)
		default:
			left = append(left, p)
		}
	}
	h.clis = left
}

// apply makes the calls of the apply command, after its checks.
func (h *host) apply(name, text string) {
	at := h.mounted
	if at != h.manifests || h.check.busy[name] {
		return // refused: the directory is not the one that was there before
	}
	h.check.touched(name, text)
	h.command("apply", name, func(t *task) error {
		defer delete(h.check.busy, name)
		err := atomicfile.In{Dir: &dir{h: h, n: at, name: "manifests"}}.Write(name+".yaml", []byte(text), 0o600)
		if err == nil && !t.p.dead {
			h.stats.Acks++
			h.check.acks[name] = []string{text}
		}
		h.notify()
		return err
	})
}

// remove makes the calls of the delete command.
func (h *host) remove(name string) {
	at := h.mounted
	if at != h.manifests || h.check.busy[name] || at.names[name+".yaml"] == nil {
		return
	}
	h.check.touched(name, "")
	h.command("delete", name, func(t *task) error {
		defer delete(h.check.busy, name)
		err := atomicfile.In{Dir: &dir{h: h, n: at, name: "manifests"}}.Remove(name + ".yaml")
		if err == nil && !t.p.dead {
			h.stats.Acks++
			h.check.acks[name] = []string{""}
		}
		h.notify()
		return err
	})
}

// restart makes the calls of the restart command.
func (h *host) restart(name string) {
	key := "restart " + name
	if h.check.busy[key] || h.state.names["requests"] == nil || h.mounted != h.manifests || h.manifests.names[name+".yaml"] == nil {
		return // there is no such sandbox
	}
	token := h.newUID()
	h.check.requested(name, token)
	h.command("restart", key, func(t *task) error {
		defer delete(h.check.busy, key)
		err := h.ask(actual.Request{Kind: actual.RequestRestart, Name: name, Token: token})
		if err == nil && !t.p.dead && h.manifests.names[name+".yaml"] != nil && h.onRecord(name) != nil {
			h.stats.Acks++
			h.check.tokens[name] = []string{token}
		}
		h.notify()
		return err
	})
}

// approve makes the calls of the approve command.
func (h *host) approve() {
	g := h.check.guard
	if g == nil || h.check.busy["approve"] || h.state.names["requests"] == nil {
		return
	}
	token := h.newUID()
	h.command("approve", "approve", func(t *task) error {
		defer delete(h.check.busy, "approve")
		err := h.ask(actual.Request{Kind: actual.RequestApprove, Token: token, Names: g.Names})
		h.notify()
		return err
	})
}

// ask leaves a request, as a command does.
func (h *host) ask(r actual.Request) error {
	s, err := h.openStore()
	if err != nil {
		return err
	}
	return s.PutRequest(r)
}

// notify has the daemon told that something has changed, when nobody else runs.
func (h *host) notify() { h.woken = true }
