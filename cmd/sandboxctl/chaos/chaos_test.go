// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
)

// kind of a fault.
type kind string

// The faults. Those that touch a sandbox may have it replaced or restarted; all
// others must not.
const (
	killDaemon    kind = "kill daemon"
	recycle       kind = "kill daemon and pair, give the pid to another process"
	stopDaemon    kind = "stop daemon"
	killSentry    kind = "kill sentry"
	killGofer     kind = "kill gofer"
	killBoth      kind = "kill sentry and gofer"
	stopSentry    kind = "stop sentry"
	stopGofer     kind = "stop gofer"
	change        kind = "change manifest"
	remove        kind = "remove manifest"
	breakManifest kind = "break manifest"
	rewrite       kind = "rewrite manifest"
	hide          kind = "hide manifests directory"
	restart       kind = "restart"
	killApply     kind = "kill apply"
	killDelete    kind = "kill delete"
	killRestart   kind = "kill restart"
	killExec      kind = "kill exec"
)

var touches = map[kind]bool{
	recycle: true, killSentry: true, killGofer: true, killBoth: true, change: true, remove: true, restart: true,
	killApply: true, killDelete: true, killRestart: true,
}

// weights of the faults; those that end the daemon do not come in calm rounds.
var weights = []struct {
	kind kind
	n    int
	wild bool
}{
	{killDaemon, 14, true},
	{recycle, 3, true},
	{stopDaemon, 6, false},
	{killSentry, 6, false},
	{killGofer, 6, false},
	{killBoth, 2, false},
	{stopSentry, 6, false},
	{stopGofer, 6, false},
	{change, 8, false},
	{remove, 8, false},
	{breakManifest, 6, false},
	{rewrite, 5, false},
	{hide, 4, false},
	{restart, 4, false},
	{killApply, 5, false},
	{killDelete, 5, false},
	{killRestart, 4, false},
	{killExec, 5, false},
	{loseImage, 3, false},
	{loseVolume, 4, false},
	{moveTag, 3, false},
	{hideLayout, 3, false},
	{changeObject, 4, false},
}

// fault is one of a round.
type fault struct {
	kind   kind
	target int           // which sandbox
	delay  time.Duration // before it
	within time.Duration // until the program that it is about is killed
}

func (f fault) String() string {
	s := fmt.Sprintf("%s after %s", f.kind, f.delay)
	switch f.kind {
	case killDaemon, stopDaemon, hide:
	default:
		s += fmt.Sprintf(" (sandbox %d)", f.target)
	}
	if strings.HasPrefix(string(f.kind), "kill ") && f.within > 0 {
		s += fmt.Sprintf(" within %s", f.within)
	}
	return s
}

// The sandboxes: those that are hurt, and one that nobody ever touches.
const (
	targets   = 5
	bystander = targets
)

// draw is what happens in a round. It depends on nothing but the seed.
func draw(r *rand.Rand, calm bool) []fault {
	total := 0
	for _, w := range weights {
		if !calm || !w.wild {
			total += w.n
		}
	}
	out := make([]fault, 1+r.IntN(3))
	for i := range out {
		n := r.IntN(total)
		for _, w := range weights {
			if calm && w.wild {
				continue
			}
			if n -= w.n; n < 0 {
				out[i].kind = w.kind
				break
			}
		}
		out[i].target = r.IntN(targets)
		// Mostly at once; now and then as long as an operation takes.
		out[i].delay = time.Duration(r.IntN(4)) * time.Millisecond
		if r.IntN(4) == 0 {
			out[i].delay = time.Duration(r.IntN(60)) * time.Millisecond
		}
		out[i].within = time.Duration(r.IntN(8000)) * time.Microsecond
	}
	return out
}

// Rounds of a window, after which everything must settle, and of a block, whose
// second half leaves the daemon alive so that what it uses can be compared.
const (
	windowRounds = 4
	blockRounds  = 100
)

// chaos is a run.
type chaos struct {
	*world
	rng      *rand.Rand
	canaries *canaries
	texts    [targets + 1]string // what the manifest of each said last
	broken   [targets + 1]bool
	variant  int
	touched  map[string]bool
	history  []string // of the window
	stopped  []*process.Handle
	killed   []*process.Handle
	frozen   bool // the daemon
	// Of the stores: what was damaged, what is away, which way tags point.
	spoiled             [targets]bool
	lost, hidden, moved bool
	documents           int  // their variant
	rewritten           bool // in this window
	counts              map[kind]int
	recycled            int
	use                 []usage
}

func (c *chaos) name(i int) string { return fmt.Sprintf("%s-%d", c.prefix, i) }

// TestChaos hurts a daemon and six sandboxes at random, and has them recover.
// SEED repeats the faults of a run, ROUNDS says how many there are.
func TestChaos(t *testing.T) {
	requireHost(t)
	rounds := int(number(t, "ROUNDS", 200))
	seed := number(t, "SEED", time.Now().UnixNano())
	t.Logf("SEED=%d ROUNDS=%d", seed, rounds)
	c := &chaos{
		world: newWorld(t, "--resync", "2s", "--poll", "500ms"),
		rng:   rand.New(rand.NewPCG(uint64(seed), 0)), canaries: &canaries{t: t}, counts: map[kind]int{},
	}
	t.Cleanup(func() {
		c.thaw()
		c.buried()
		c.canaries.release(0)
	})
	for range 3 {
		c.canaries.add()
	}
	c.layout(false)
	for i := range targets + 1 {
		if isStored(i) {
			c.objects(c.objectsOf(i), 0)
		}
		c.write(i)
	}
	c.start()
	c.settle()
	base, baseBy := c.goroutines()
	c.start()
	c.settle()
	began, still := time.Now(), c.twins()[c.name(bystander)]
	before := map[string]twin{}
	for r := range rounds {
		calm := r%blockRounds >= blockRounds/2
		if r%windowRounds == 0 {
			c.touched, before, c.history, c.rewritten = map[string]bool{}, c.twins(), nil, false
		}
		faults := draw(c.rng, calm)
		for _, f := range faults {
			time.Sleep(f.delay)
			c.carryOut(f)
			c.history = append(c.history, fmt.Sprintf("%d: %s", r, f))
		}
		c.thaw()
		if t.Failed() {
			t.Fatalf("in round %d of SEED=%d: %v", r, seed, faults)
		}
		if r%windowRounds < windowRounds-1 && r < rounds-1 {
			continue // while it recovers
		}
		c.mend()
		c.buried()
		if c.rewritten {
			c.get() // no record says whether that was acted on
		}
		c.settle()
		c.unharmed(before)
		if now := c.twins()[c.name(bystander)]; now != still {
			t.Fatalf("round %d of SEED=%d: the sandbox that nobody touched was %v and is %v\n%s", r, seed, still, now, c.tail())
		}
		if calm {
			c.use = append(c.use, c.usage(r/blockRounds))
		}
		if r%blockRounds == blockRounds-1 {
			c.get()
			// An operation may be under way, or a watch be renewed.
			if n, by := c.goroutines(); n > base+2 {
				t.Errorf("block %d: %d goroutines, %d at the beginning\n%v\n%v", r/blockRounds, n, base, by, baseBy)
			}
			c.start()
			t.Logf("%d rounds in %s", r+1, time.Since(began).Round(time.Second))
		}
	}
	c.flat()
	t.Logf("%d rounds in %s, %d pids recycled, faults: %v", rounds, time.Since(began).Round(time.Second), c.recycled, c.counts)
	c.nothingInManifests()
	for i := range targets + 1 {
		c.remove(c.name(i))
	}
	c.settle()
}

// write puts a manifest in that asks for something new.
func (c *chaos) write(i int) {
	c.variant++
	c.texts[i], c.broken[i] = c.text(i), false
	c.put(c.name(i), c.texts[i])
}

// mend makes manifests of those that are broken, as they were.
func (c *chaos) mend() {
	c.mendStores()
	for i, b := range c.broken {
		if b {
			c.put(c.name(i), c.texts[i])
			c.broken[i] = false
		}
	}
}

// thaw lets everything go on that was stopped.
func (c *chaos) thaw() {
	for _, p := range c.stopped {
		send(c.t, p, unix.SIGCONT)
		p.Close()
	}
	c.stopped = nil
	if c.frozen {
		_ = c.daemon.cmd.Process.Signal(unix.SIGCONT)
		c.frozen = false
	}
}

func (c *chaos) carryOut(f fault) {
	c.counts[f.kind]++
	name := c.name(f.target)
	if touches[f.kind] {
		c.touched[name] = true
	}
	switch f.kind {
	case killDaemon:
		c.stop(unix.SIGKILL)
		c.frozen = false
		c.start()
	case stopDaemon:
		_ = c.daemon.cmd.Process.Signal(unix.SIGSTOP)
		c.frozen = true
	case recycle:
		c.recycle(name)
	case killSentry:
		c.signal(unix.SIGKILL, name, "sentry")
	case killGofer:
		c.signal(unix.SIGKILL, name, "gofer")
	case killBoth:
		c.signal(unix.SIGKILL, name, "gofer")
		c.signal(unix.SIGKILL, name, "sentry")
	case stopSentry:
		c.signal(unix.SIGSTOP, name, "sentry")
	case stopGofer:
		c.signal(unix.SIGSTOP, name, "gofer")
	case change:
		c.write(f.target)
	case remove:
		c.remove(name)
		c.broken[f.target] = false
	case breakManifest:
		if _, err := os.Stat(c.file(name)); err == nil {
			c.put(name, strings.Replace(c.texts[f.target], "command:", "comand:", 1))
			c.broken[f.target] = true
		}
	case rewrite:
		if _, err := os.Stat(c.file(name)); err == nil {
			c.put(name, c.texts[f.target])
			c.broken[f.target] = false
		}
	case hide:
		must(c.t, os.Rename(c.manifests, c.manifests+".away"))
		time.Sleep(f.within)
		must(c.t, os.Rename(c.manifests+".away", c.manifests))
	case restart:
		_, _ = c.run("restart", name) // there may be no such sandbox
	case killApply:
		c.killApply(f)
	case killDelete:
		c.interrupt(f, "delete", name)
		if _, err := os.Stat(c.file(name)); err != nil {
			c.broken[f.target] = false
		}
	case killRestart:
		c.interrupt(f, "restart", name)
	case killExec:
		c.interrupt(f, "exec", name, "--", "/bin/busybox", "true")
	case loseImage:
		c.loseImage(int(f.within.Microseconds()))
	case loseVolume:
		c.loseVolume(targets-2+f.target%2, int(f.within.Microseconds()))
	case moveTag:
		if !c.hidden {
			c.moved = !c.moved
			c.layout(c.moved)
		}
	case hideLayout:
		if !c.hidden {
			c.hidden = true
			must(c.t, os.Rename(filepath.Join(c.dir, "layout"), filepath.Join(c.dir, "hidden")))
		}
	case changeObject:
		c.documents++
		c.rewritten = true
		c.objects(c.objectsOf(targets-1), c.documents)
		for i := range targets {
			if isStored(i) {
				c.touched[c.name(i)] = true
			}
		}
	}
}

// signal sends one to a process of a sandbox, if it has one.
func (c *chaos) signal(sig unix.Signal, name, what string) {
	p := c.process(name, what)
	if p == nil {
		return
	}
	send(c.t, p, sig)
	if sig == unix.SIGSTOP {
		c.stopped = append(c.stopped, p)
		return
	}
	c.killed = append(c.killed, p)
}

// buried waits until what was killed is dead: the threads of a process go one
// by one, and as long as there is one it counts as alive.
func (c *chaos) buried() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, p := range c.killed {
		if err := p.Wait(ctx); err != nil {
			c.t.Errorf("a process is alive after SIGKILL: %v", err)
		}
		p.Close()
	}
	c.killed = nil
}

// recycle kills the daemon and a sandbox, and gives the number of its sentry to
// a canary before there is another daemon.
func (c *chaos) recycle(name string) {
	c.stop(unix.SIGKILL)
	c.frozen = false
	defer c.start()
	rec := c.record(name)
	if rec == nil || rec.Sentry == nil {
		return
	}
	c.signal(unix.SIGKILL, name, "gofer")
	c.signal(unix.SIGKILL, name, "sentry")
	c.buried()
	if c.canaries.recycle(rec.Sentry.PID) {
		c.recycled++
	}
	c.canaries.release(8)
}

// interrupt starts a verb and kills it in the middle of it. It says whether the
// verb had succeeded before.
func (c *chaos) interrupt(f fault, args ...string) bool {
	cmd := c.command(args...)
	must(c.t, cmd.Start())
	time.Sleep(f.within)
	_ = cmd.Process.Kill() // it may have ended
	return cmd.Wait() == nil
}

// killApply kills an apply: the manifest is the old one or the new one, and the
// new one if it said so.
func (c *chaos) killApply(f fault) {
	name := c.name(f.target)
	old, _ := os.ReadFile(c.file(name)) // there may be none
	c.variant++
	text := c.text(f.target)
	from := filepath.Join(c.dir, "apply.yaml")
	must(c.t, os.WriteFile(from, []byte(text), 0o644))
	done := c.interrupt(f, "apply", "-f", from)
	now, err := os.ReadFile(c.file(name))
	switch {
	case string(now) == text:
		c.texts[f.target], c.broken[f.target] = text, false
	case done:
		c.t.Errorf("apply of %s has succeeded, and its file is %q, %v", name, now, err)
	case string(now) != string(old):
		c.t.Errorf("a killed apply has left %q, %v, before it was %q", now, err, old)
	}
}

// unharmed checks that sandboxes which were not touched in the window are the
// ones that they were.
func (c *chaos) unharmed(before map[string]twin) {
	after := c.twins()
	for name, was := range before {
		if !c.touched[name] && after[name] != was {
			c.t.Fatalf("%s was not touched, was %v and is %v\n%s\n%s\n%q", name, was, after[name], c.tail(), c.sentryLogs(name), c.history)
		}
	}
}

// sentryLogs are the last words of the sentries of a sandbox.
func (c *chaos) sentryLogs(name string) string {
	var b strings.Builder
	files, _ := filepath.Glob(filepath.Join(c.state, "sandboxes", name, "logs", "*"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		fmt.Fprintf(&b, "%s: %v\n%s\n", f, err, text[max(0, len(text)-3000):])
	}
	return b.String()
}

// get checks that the program agrees that all is converged. A manifest that was
// removed a moment ago may have been read by the daemon before: its sandbox then
// comes up and is removed.
func (c *chaos) get() {
	c.until("get says that all is converged", func() error {
		out, err := c.run("get", "-o", "json")
		if err != nil || !strings.Contains(out, `"converged": true`) {
			return fmt.Errorf("%v\n%s", err, out)
		}
		return nil
	})
}

// nothingInManifests checks that programs that were killed have left nothing
// for good: the next one clears up.
func (c *chaos) nothingInManifests() {
	from := filepath.Join(c.dir, "apply.yaml")
	must(c.t, os.WriteFile(from, []byte(c.texts[bystander]), 0o644))
	if out, err := c.run("apply", "-f", from); err != nil {
		c.t.Errorf("apply: %v\n%s", err, out)
	}
	entries, err := os.ReadDir(c.manifests)
	must(c.t, err)
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".yaml") })
	if len(entries) > 0 {
		c.t.Errorf("left in the manifests directory: %v", entries)
	}
}
