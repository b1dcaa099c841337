// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/reconciletest"
)

// checker knows what is true, and compares it after every step with what must
// never be (I1, I2, I3, …: the invariants of the fault model).
type checker struct {
	// acks are what the file of a name may hold: what a command that returned 0
	// wrote ("": nothing), or one that came after it and did not return.
	acks map[string][]string
	// tokens are the same for requests to restart.
	tokens map[string][]string
	asked  map[string]bool // to restart, at any time
	// puts are the records whose writing was reported a success.
	puts map[string]*actual.Record
	// completed are the specs that ran to their end, on record.
	completed map[string]run
	genuine   map[string]int // failures that are the sandbox's
	started   map[exitKey]bool
	records   map[string]*actual.Record // as last seen
	wishes    map[string][]wish         // of the author, since the last load began
	asking    map[string]asking
	busy      map[string]bool // names with a command
	passes    int
	doomNext  int // sentries that will not come up
	line      *reconciletest.Line
	guard     *reconcile.Guard
	reason    string // of the last snapshot not to be complete
	ran       map[string]ran
	first     map[string]time.Time // starts of applications, by name, uid and hash
	pruned    map[string]bool      // images, since the last load began
}

// run is of a spec, because of a request.
type run struct{ hash, token string }

// wish is what the author's file of a name says, from a step on.
type wish struct {
	step int
	at   time.Time
	file *inode // nil: it is absent
	ver  uint64
	text *manifestText
}

// entry is the manifest of a wish, nil if there is none that can be read.
func (w *wish) entry() *desired.Entry {
	if w.text != nil && len(w.text.entries) == 1 {
		return &w.text.entries[0]
	}
	return nil
}

func (c *checker) init(h *host) {
	*c = checker{
		acks: map[string][]string{}, tokens: map[string][]string{}, asked: map[string]bool{}, puts: map[string]*actual.Record{},
		completed: map[string]run{}, genuine: map[string]int{}, started: map[exitKey]bool{}, records: map[string]*actual.Record{},
		wishes: map[string][]wish{}, busy: map[string]bool{}, asking: map[string]asking{}, line: &reconciletest.Line{},
		ran: map[string]ran{}, pruned: map[string]bool{}, first: map[string]time.Time{},
	}
	c.follow(h)
}

// follow notes what the author wants now.
func (c *checker) follow(h *host) {
	for _, name := range manifestNames {
		f := h.manifests.names[name+".yaml"]
		list := c.wishes[name]
		if n := len(list); n > 0 && list[n-1].file == f && (f == nil || list[n-1].ver == f.version) {
			continue
		}
		w := wish{step: h.stats.Steps, at: time.Now(), file: f}
		if f != nil {
			w.ver, w.text = f.version, decodeManifest(name+".yaml", f.data)
		} else {
			delete(c.tokens, name)
		}
		if e := w.entry(); e == nil || e.Hash != c.completed[name].hash {
			delete(c.completed, name)
		}
		c.wishes[name] = append(list, w)
	}
}

// loadBegins forgets what the author wanted before.
func (c *checker) loadBegins(h *host) {
	clear(c.pruned)
	c.follow(h)
	for _, name := range manifestNames {
		if list := c.wishes[name]; len(list) > 1 {
			c.wishes[name] = list[len(list)-1:]
		}
	}
}

func (c *checker) wished(name string, is func(w *wish) bool) bool {
	list := c.wishes[name]
	return slices.ContainsFunc(list, func(w wish) bool { return is(&w) })
}

// absent says whether the author had taken the manifest away, for long enough.
func (c *checker) absent(name string) bool {
	return c.wished(name, func(w *wish) bool { return w.file == nil && time.Since(w.at) >= settle })
}

// touched: somebody begins to write the file of a name; text is what it will
// hold.
func (c *checker) touched(name, text string) {
	if a := c.acks[name]; a != nil {
		c.acks[name] = append(slices.Clip(a), text)
	}
}

func (c *checker) requested(name, token string) {
	c.asked[name] = true
	delete(c.completed, name)
	if a := c.tokens[name]; a != nil {
		c.tokens[name] = append(slices.Clip(a), token)
	}
}

// put: the writing of a record was reported a success.
func (c *checker) put(r *actual.Record) {
	c.puts[r.Name] = r.Clone()
	// What an order to stop says of the end is on record too: hooks run after it, for as
	// long as they may.
	ordered := r.Phase == actual.PhaseStopping && r.Ending.App().Completed
	if ordered || r.Phase == actual.PhaseStopped && r.App().Completed {
		if list := c.wishes[r.Name]; len(list) > 0 {
			if e := list[len(list)-1].entry(); e != nil && e.Hash == r.SpecHash {
				c.completed[r.Name] = run{r.SpecHash, r.RestartToken}
			}
		}
	}
}

// plan checks every decision against what is true.
func (c *checker) plan(h *host, in *reconcile.Input, plan *reconcile.Plan) {
	c.guard, c.reason = plan.Guard, in.Desired.Reason
	due := make([]reconciletest.Due, len(plan.Actions))
	for i, a := range plan.Actions {
		due[i] = reconciletest.Due{Name: a.Name, Lane: int(a.Lane)}
	}
	c.line.Pass(due, in.Operations)
	if wrong := c.line.Wrong(); wrong != "" {
		h.breach("I5: %s", wrong)
	}
	c.follow(h)
	for i := range plan.Actions {
		a := &plan.Actions[i]
		if why := c.unjustified(h, in, a); why != "" {
			h.breach("%s %s (%s): %s", a.Op, a.Name, a.Reason, why)
		}
	}
	c.neededPulls(h, in)
}

func (c *checker) unjustified(h *host, in *reconcile.Input, a *reconcile.Action) string {
	if h.backups[a.Name] != nil && !slices.ContainsFunc(in.Actual.Sandboxes, func(o actual.Observed) bool { return o.Record.Name == a.Name }) {
		return "I8: its record can't be read"
	}
	var rec *actual.Record
	for i := range in.Actual.Sandboxes {
		if in.Actual.Sandboxes[i].Record.Name == a.Name {
			rec = in.Actual.Sandboxes[i].Record
		}
	}
	removal := rec != nil && rec.Ending != nil && rec.Ending.Reason == actual.ReasonManifestRemoved
	switch a.Op {
	case reconcile.OpForget:
		// One that is stopped at its gate, whose launcher is dead, has done nothing
		// and leaves when it is continued.
		if p := h.find(a.Name, "sentry"); p != nil && p.gate != gateEOF && rec != nil && p.uid == rec.UID {
			return "I1: its sentry lives"
		}
		if a.Retire {
			if rec == nil || !rec.App().Completed {
				return "I6: it has not finished"
			}
			return ""
		}
		if !removal && !c.absent(a.Name) {
			return "I8: its manifest is there"
		}
	case reconcile.OpCreate:
		if c.imageMissing(h, a.Entry, a) {
			return "its image is not there"
		}
		if p := h.find(a.Name, "sentry"); p != nil && p.gate != gateEOF {
			return "I2: one lives"
		}
		if rec != nil && rec.App().Completed && rec.SpecHash == a.Entry.Hash && !c.asked[a.Name] {
			return "it ran to its end"
		}
	case reconcile.OpRefresh:
		if rec.Phase != actual.PhaseRunning || rec.SpecHash != a.Entry.Hash {
			return "it does not run what is wanted"
		}
	case reconcile.OpResume, reconcile.OpDestroy:
		if rec.Phase == actual.PhaseRunning && a.Ending.Replace && c.imageMissing(h, in.Desired.Lookup(a.Name), a) {
			return "I7: the image of the next one is not there"
		}
		return c.needless(h, rec, a, removal)
	}
	return ""
}

// needless says why a sandbox need not have been stopped.
func (c *checker) needless(h *host, rec *actual.Record, a *reconcile.Action, removal bool) string {
	if rec.Phase == actual.PhaseStopping {
		return ""
	}
	alive := func(id *process.Identity) bool {
		return id != nil && h.procs[id.PID] != nil && h.procs[id.PID].id == *id && !h.procs[id.PID].dead
	}
	both := alive(rec.Sentry) && alive(rec.Gofer)
	switch a.Reason {
	case actual.ReasonManifestRemoved:
		if !removal && !c.absent(a.Name) {
			return "I8: its manifest is there"
		}
	case actual.ReasonSpecChanged:
		if !c.wished(a.Name, func(w *wish) bool { e := w.entry(); return e != nil && e.Hash != rec.SpecHash }) {
			return "I7: its manifest has not changed"
		}
	case actual.ReasonSuspended:
		if !c.wished(a.Name, func(w *wish) bool { e := w.entry(); return e != nil && e.Sandbox.Spec.Suspend }) {
			return "I7: it is not suspended"
		}
	case actual.ReasonRestartRequested:
		if !c.asked[a.Name] {
			return "I7: nobody asked"
		}
	case actual.ReasonDeadlineExceeded:
		if at, ok := c.first[runOf(rec.Name, rec.UID, rec.SpecHash)]; !ok || time.Since(at) < activeDeadline {
			return "I7: its time is not over"
		}
	case actual.ReasonInterrupted:
		if both && rec.Phase == actual.PhaseRunning {
			return "I7: it runs"
		}
	default:
		if both {
			return "I7: both processes live"
		}
	}
	return ""
}

// observed checks that nothing that lives is said to be dead.
func (c *checker) observed(h *host, s *actual.Snapshot) {
	for i := range s.Sandboxes {
		o := &s.Sandboxes[i]
		for _, x := range []struct {
			id   *process.Identity
			live process.Liveness
		}{{o.Record.Sentry, o.Sentry}, {o.Record.Gofer, o.Gofer}} {
			if x.live == process.Dead && h.procs[x.id.PID] != nil && h.procs[x.id.PID].id == *x.id && !h.procs[x.id.PID].dead {
				h.breach("I2: pid %d of %s lives and is said to be dead", x.id.PID, o.Record.Name)
			}
		}
	}
}

// signalled: a process of a sandbox gets SIGKILL.
func (c *checker) signalled(h *host, p *proc) {
	if p.role != "sentry" || !p.started || !p.running || p.undone || p.ended != nil {
		return
	}
	if rec := h.onRecord(p.name); rec == nil || rec.UID != p.uid || rec.Attempt != p.attempt || rec.Phase != actual.PhaseStopping {
		h.breach("I8: the running sentry of %s is killed, and its record does not say that it is to be", p.name)
	}
}

// createFailed: a create has failed, and will undo what it did, whatever the
// record says: the write that failed may have reached it.
func (c *checker) createFailed(h *host, rec *actual.Record) {
	c.genuine[rec.Name]++
	for _, p := range h.sandboxProcs() {
		if p.uid == rec.UID && p.attempt == rec.Attempt {
			p.undone = true
		}
	}
}

// appStarted: an application begins to run.
func (c *checker) appStarted(h *host, p *proc) {
	key := exitKey{p.uid, p.attempt}
	if c.started[key] {
		h.breach("attempt %d of %s runs twice", p.attempt, p.name)
	}
	c.started[key] = true
	if run := runOf(p.name, p.uid, p.hash); c.first[run].IsZero() {
		c.first[run] = time.Now()
	}
	c.imageStarted(h, p)
	if rec := h.onRecord(p.name); rec != nil && c.completed[p.name] == (run{p.hash, rec.RestartToken}) {
		h.breach("I6: %s ran to its end, that was on record, and it runs again", p.name)
	}
}

// runOf names the runs of one spec of one sandbox.
func runOf(name, uid, hash string) string { return name + "/" + uid + "/" + hash }

// step checks what must be true at any moment.
func (c *checker) step(h *host) {
	c.follow(h)
	c.pullsEnd(h)
	seen := map[string]int(nil)
	for _, p := range h.sandboxProcs() {
		if p.role == "sentry" && p.gate != gateEOF {
			if seen == nil {
				seen = make(map[string]int, 4)
			}
			if seen[p.name]++; seen[p.name] > 1 {
				h.breach("I2: two sentries of %s", p.name)
			}
		}
		if p.gate != gateOpen {
			continue
		}
		rec := h.onRecord(p.name)
		if rec == nil {
			h.breach("I1: %s of %s (pid %d) has passed its gate and is on no record", p.role, p.name, p.id.PID)
			return
		}
		id := rec.Sentry
		if p.role == "gofer" {
			id = rec.Gofer
		}
		if id == nil || *id != p.id {
			h.breach("I1: %s of %s (pid %d) has passed its gate and its record (%s) does not know it", p.role, p.name, p.id.PID, rec.Phase)
			return
		}
		if rec.Phase == actual.PhaseRunning && p.role == "sentry" {
			p.running = true
		}
	}
	for _, name := range manifestNames {
		c.record(h, name)
		c.request(h, name)
	}
}

// request looks whether a request to restart is gone before it was carried out.
func (c *checker) request(h *host, name string) {
	var f *inode
	if d := h.state.names["requests"]; d != nil {
		f = d.names["restart."+name+".json"]
	}
	old := c.asking[name]
	if f == old.file {
		return
	}
	c.asking[name] = asking{file: f}
	if f != nil {
		var r actual.Request
		if err := json.Unmarshal(f.data, &r); err == nil {
			c.asking[name] = asking{f, r.Token}
		}
		return
	}
	rec, list := h.onRecord(name), c.wishes[name]
	if rec != nil && list[len(list)-1].file != nil && rec.RestartToken != old.token {
		h.breach("I6: the request to restart %s was dropped, and not carried out", name)
	}
}

// asking is a request to restart that waits.
type asking struct {
	file  *inode
	token string
}

// record looks at a record that has changed.
func (c *checker) record(h *host, name string) {
	if d := h.sandboxes()[name]; d != nil && h.backups[name] == nil {
		if f := d.names["meta.json"]; f != nil {
			if _, err := f.record(); err != nil {
				h.breach("I6: the record of %s can't be read: %v", name, err)
				return
			}
		}
	}
	rec := h.onRecord(name)
	if rec == c.records[name] {
		return
	}
	c.records[name] = rec
	if rec == nil {
		return
	}
	c.otherSpec(rec)
	if rec.App().Failures > c.genuine[name] {
		h.breach("%d failures of %s are on record, there were %d", rec.App().Failures, name, c.genuine[name])
	}
	if rec.Phase == actual.PhaseStopped {
		for _, p := range h.sandboxProcs() {
			if p.name == name && p.gate != gateEOF {
				h.breach("I1: %s is on record as stopped, and its %s lives", name, p.role)
			}
		}
	}
}

// afterPowerCut compares what is left with what was promised.
func (c *checker) afterPowerCut(h *host) {
	clear(c.asking)
	for _, name := range manifestNames {
		if a := c.acks[name]; a != nil {
			got := ""
			if f := h.manifests.names[name+".yaml"]; f != nil {
				got = string(f.data)
			}
			if !slices.Contains(a, got) {
				h.breach("I6: after a power cut the manifest of %s is not what was applied: %q", name, got)
			}
		}
		if p := c.puts[name]; p != nil && h.backups[name] == nil {
			if rec := h.onRecord(name); rec == nil || rec.UID != p.UID || rec.Attempt < p.Attempt {
				h.breach("I6: after a power cut the record of %s that was written is lost", name)
			}
		}
	}
}

// settled checks what is true when nothing happens any more.
func (c *checker) settled(h *host) {
	for _, name := range manifestNames {
		list := c.wishes[name]
		if why := c.unsettled(h, name, list[len(list)-1].entry()); why != "" {
			h.breach("I5: %s has not converged: %s", name, why)
		}
	}
	for n, p := range h.procs {
		if p.gate != gateNone && (p.dead || h.onRecord(p.name) == nil) {
			h.breach("I4: pid %d (%s of %s, dead %t) is left", n, p.role, p.name, p.dead)
		}
	}
	for _, g := range slices.Sorted(maps.Keys(h.cgroups)) {
		name, _, _ := strings.Cut(g, "-")
		if rec := h.onRecord(name); rec == nil || !slices.Contains(rec.Cgroups, g) {
			h.breach("I4: cgroup %s is left", g)
		}
	}
	for _, p := range h.images.pulls {
		h.breach("I4: the pull of %s is left", p.ref)
	}
	var walk func(path string, n *inode)
	walk = func(path string, n *inode) {
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			// A command without a lock may be writing a request.
			if strings.HasPrefix(name, atomicfile.TempPrefix) && path != "requests" {
				h.breach("I4: %s/%s is left", path, name)
			}
			// A power cut may bring back a socket, until the sandbox is made again.
			socket := name == "control.sock" && h.stats.PowerCuts == 0 && h.find(strings.TrimPrefix(path, "sandboxes/"), "sentry") == nil
			if path == "trash" || socket {
				h.breach("I4: %s/%s is left", path, name)
			}
			if c := n.names[name]; c.isDir {
				walk(strings.TrimPrefix(path+"/"+name, "/"), c)
			}
		}
	}
	walk("", h.state)
	for name := range h.state.names["requests"].names {
		_, of, _ := strings.Cut(strings.TrimSuffix(name, ".json"), ".")
		if list := c.wishes[of]; len(list) > 0 {
			if e := list[len(list)-1].entry(); e != nil && e.Sandbox.Spec.Suspend {
				continue // it waits for the sandbox to be resumed
			}
		}
		if !strings.HasPrefix(name, ".") {
			h.breach("I5: request %s is not carried out", name)
		}
	}
}

// unsettled says why a name is not what the author wants.
func (c *checker) unsettled(h *host, name string, e *desired.Entry) string {
	rec := h.onRecord(name)
	if e == nil {
		if h.sandboxes()[name] != nil {
			return "it is not wanted and still there"
		}
		return ""
	}
	spec := &e.Sandbox.Spec
	sentry, gofer := h.find(name, "sentry"), h.find(name, "gofer")
	switch {
	case spec.Suspend:
		if sentry != nil || rec != nil && rec.Phase != actual.PhaseStopped {
			return "it is suspended and runs"
		}
		return ""
	case rec == nil:
		return "it is wanted and not there"
	case rec.SpecHash != e.Hash:
		return "its spec is an old one"
	}
	if a := c.tokens[name]; a != nil && !slices.Contains(a, rec.RestartToken) {
		return "I6: a restart that was asked for was not carried out"
	}
	if rec.Phase == actual.PhaseStopped {
		// A run is over for its spec, also if its policy has been changed since.
		if rec.App().Completed && spec.TTLAfterFinished != nil && !rec.Retired {
			return "it has finished, and its record is kept"
		}
		if rec.App().Completed || spec.Backoff.Limit > 0 && rec.App().Failures >= spec.Backoff.Limit {
			return ""
		}
	}
	if spec.ActiveDeadline != nil && sentry != nil {
		return "it runs for longer than its activeDeadline"
	}
	if rec.Phase != actual.PhaseRunning || sentry == nil || gofer == nil || !sentry.started || sentry.hash != e.Hash {
		b, err := json.Marshal(rec)
		return fmt.Sprintf("sentry %t, gofer %t, record %s, %v", sentry != nil, gofer != nil, b, err)
	}
	return h.outdated(e, sentry, gofer)
}
