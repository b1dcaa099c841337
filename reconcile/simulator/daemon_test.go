// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/manifestdir"
	"sandboxctl.dev/reconcile"
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
}

// startDaemon starts one. It does nothing before it is told to.
func (h *host) startDaemon() {
	p, ctx := h.newProgram("daemon")
	h.daemon = p
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
	t := newTask(p, "start")
	s, err := h.openStore(t)
	if err != nil {
		return err
	}
	if err := s.sweepTrash(t); err != nil && p.dead {
		return err
	}
	if !h.is("temps-not-swept") {
		if err := s.sweep(t); err != nil && p.dead {
			return err
		}
	}
	list, err := s.listing(t)
	if err != nil {
		return err
	}
	d := &daemon{h: h, p: p, store: s, t: newTask(p, "loop")}
	d.t.loop = true
	d.source = &source{h: h, t: d.t, files: map[string]*manifestText{}, seen: map[string]bool{}, missing: map[string]time.Time{}, expected: len(list.Records)+len(list.Held) > 0}
	opts := reconcile.Options{}
	if old, err := s.daemonInfo(t); err == nil && old != nil {
		opts.Removals = old.Removals
		if err := json.Unmarshal(old.Memory, &d.source.memory); err != nil {
			return err
		}
		d.memory = d.source.memory
	}
	if p.dead {
		return errDead
	}
	p.observer = &observer{h: h, t: d.t, store: s, handles: map[actual.Identity]*handle{}}
	opts.View = &view.View{Source: d.source, Observer: p.observer, Policy: reconcile.DefaultPolicy()}
	opts.Requests = d
	opts.Launcher = &launcher{h: h, p: p, store: s}
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
	}
	return reconcile.New(opts).Run(ctx)
}

// DropRequest implements reconcile.Requests.
func (d *daemon) DropRequest(r actual.Request) error { return d.store.dropRequest(d.t, &r) }

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
	if err := d.store.putDaemonInfo(d.t, &d.info); err == nil {
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
		s.settle(snap, incomplete)
	}
	if s.h.is("incomplete-is-complete") {
		snap.Complete, snap.Reason, snap.Message = true, "", ""
	}
	snap.Digest = fmt.Sprint(snap.Complete, snap.Reason)
	return snap, nil
}

func (s *source) scan() (*inode, error) {
	dir := s.h.mounted
	names := []string(nil)
	err := s.h.call(s.t, reads, "open manifests", func(bool) error {
		if dir == nil {
			return errNoDir
		}
		return nil
	})
	if err == nil {
		names, err = s.h.list(s.t, dir)
	}
	if err != nil {
		return nil, err
	}
	files := map[string]*manifestText{}
	for _, n := range names {
		if n[0] == '.' {
			continue
		}
		f, err := s.h.lookup(s.t, dir, n)
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
	if s.h.mounted != dir {
		return nil, errors.New("it was replaced")
	}
	return dir, nil
}

var errNoDir = fmt.Errorf("open manifests: %w", fs.ErrNotExist)

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

// sweep makes the calls of Store.Sweep: what crashed writers left.
func (s *store) sweep(t *task) error {
	err := s.sweepTemps(t, s.root)
	names, lerr := s.h.list(t, s.dirs)
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	for _, n := range names {
		dir, derr := s.dir(t, n)
		if derr == nil {
			derr = s.sweepTemps(t, dir)
		}
		err = errors.Join(err, derr)
	}
	return err
}

// command runs one command of a user: f, as another program.
func (h *host) command(what, name string, f func(t *task, s *store) error) {
	h.cliN++
	p, _ := h.newProgram(fmt.Sprintf("%s#%d", what, h.cliN))
	h.clis = append(h.clis, p)
	h.check.busy[name] = true
	t := newTask(p, what+" "+name)
	go func() {
		defer close(p.done)
		s := &store{h: h, root: h.state}
		p.err = f(t, s)
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
	dir := h.mounted
	if dir != h.manifests || h.check.busy[name] {
		return // refused: the directory is not the one that was there before
	}
	h.check.touched(name, text)
	h.command("apply", name, func(t *task, _ *store) error {
		defer delete(h.check.busy, name)
		err := h.atomicWrite(t, dir, name+".yaml", []byte(text))
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
	dir := h.mounted
	if dir != h.manifests || h.check.busy[name] || dir.names[name+".yaml"] == nil {
		return
	}
	h.check.touched(name, "")
	h.command("delete", name, func(t *task, _ *store) error {
		defer delete(h.check.busy, name)
		err := h.atomicRemove(t, dir, name+".yaml")
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
	h.command("restart", key, func(t *task, s *store) error {
		defer delete(h.check.busy, key)
		err := s.putRequest(t, &actual.Request{Kind: actual.RequestRestart, Name: name, Token: token})
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
	h.command("approve", "approve", func(t *task, s *store) error {
		defer delete(h.check.busy, "approve")
		err := s.putRequest(t, &actual.Request{Kind: actual.RequestApprove, Token: token, Names: g.Names})
		h.notify()
		return err
	})
}

// notify has the daemon told that something has changed, when nobody else runs.
func (h *host) notify() { h.woken = true }
