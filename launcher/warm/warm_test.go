// SPDX-License-Identifier: Apache-2.0

package warm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// This test binary is also the programs of a sandbox, as far as these wait.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case wire.WaitingName:
		wire.BeginWait()
		if _, accept, err := wire.Wait(os.Args); err != nil || accept() != nil {
			os.Exit(wire.ExitGateClosed)
		}
		time.Sleep(time.Hour)
	case companion.SentryName:
		fmt.Println(wire.Handshake(companion.SentryName, wire.Protocol, "v1"))
		os.Exit(0)
	case companion.GoferName:
		fmt.Println(wire.Handshake(companion.GoferName, gofer.Protocol, "v1"))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// world is a pool, and what it is made from.
type world struct {
	*testing.T
	*Pool
	policy *hostpolicy.Policy
	free   uint64 // memory of the host
	stop   func()
	done   chan error
}

func policyOf(t *testing.T, text string) *hostpolicy.Policy {
	t.Helper()
	p, problems := hostpolicy.Decode("p", []byte("apiVersion: "+desired.APIVersion+"\nkind: "+desired.PolicyKind+"\n"+text+"\n"))
	if p == nil {
		t.Fatal(problems)
	}
	return p
}

func newWorld(t *testing.T) *world {
	t.Helper()
	hosttest.NeedsRoot(t, "making namespaces needs root")
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{companion.SentryName, companion.GoferName} {
		if err := os.WriteFile(filepath.Join(dir, name), self, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	groups, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, policy: policyOf(t, "warm: 2"), free: 64 << 30, done: make(chan error, 1)}
	w.Pool = New(Options{
		Store: store, Cgroups: groups, KillTimeout: time.Minute, Log: slog.New(slog.DiscardHandler),
		Sentry: &companion.Program{Name: companion.SentryName, Path: filepath.Join(dir, companion.SentryName)},
		Gofer:  &companion.Program{Name: companion.GoferName, Path: filepath.Join(dir, companion.GoferName)},
		Policy: func() (*hostpolicy.Policy, error) { w.mu.Lock(); defer w.mu.Unlock(); return w.policy, nil },
	})
	w.began = time.Time{} // it has been there for long
	w.available = func() (uint64, error) { w.mu.Lock(); defer w.mu.Unlock(); return w.free, nil }
	return w
}

func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { w.done <- w.Pool.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-w.done; err != nil {
			w.Error(err)
		}
	}
}

func (w *world) until(what string, ok func() bool) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("not within a minute: %s", what)
		}
	}
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.slots)
}

func (w *world) key() Key {
	w.Helper()
	sentry, _, err := w.opts.Sentry.Open(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	defer sentry.Close()
	g, _, err := w.opts.Gofer.Open(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	defer g.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := KeyOf(sentry, g, w.policy)
	if err != nil {
		w.Fatal(err)
	}
	return k
}

func (w *world) recorded() []process.Identity {
	w.Helper()
	ids, err := Read(w.opts.Store.RootDir())
	if err != nil {
		w.Fatal(err)
	}
	return ids
}

func alive(ids ...process.Identity) (n int) {
	for i := range ids {
		if is, _ := process.LivenessOf(&ids[i]); is == process.Alive {
			n++
		}
	}
	return n
}

// As many wait as the policy says, on record; each is taken once; none is made while a start
// is under way; in the end there is none.
func TestPool(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.until("two wait", func() bool { return w.count() == 2 })
	ids := w.recorded()
	if len(ids) != 4 || alive(ids...) != 4 {
		t.Errorf("on record: %v, of which %d live", ids, alive(ids...))
	}
	ended := w.Starting()
	key := w.key()
	a, b, c := w.Take(key, false), w.Take(key, false), w.Take(key, false)
	if a == nil || b == nil || c != nil || a == b {
		t.Fatalf("%v %v %v", a, b, c)
	}
	if err := w.Return(key, a); err != nil || w.Take(key, false) != a {
		t.Errorf("not given back: %v", err)
	}
	w.Wake()
	time.Sleep(2 * quiet)
	if n := w.count(); n != 0 {
		t.Errorf("%d were made while a start is under way", n)
	}
	if now := w.recorded(); !slices.Equal(now, ids) {
		t.Errorf("what a start has taken is not on record until it has ended: %v", now)
	}
	ended()
	w.until("two wait again", func() bool { return w.count() == 2 })
	if now := w.recorded(); alive(now...) != 4 || now[0] == ids[0] {
		t.Errorf("on record: %v", now)
	}
	if n := alive(append(a.Identities(), b.Identities()...)...); n != 4 {
		t.Errorf("%d of 4 that were taken live", n)
	}
	if err := errors.Join(a.Abandon(), b.Abandon()); err != nil {
		t.Error(err)
	}
	now := w.recorded()
	w.stop()
	if n := alive(now...); n != 0 {
		t.Errorf("%d are left", n)
	}
	if ids := w.recorded(); ids != nil {
		t.Errorf("on record: %v", ids)
	}
	g, err := w.opts.Cgroups.OpenOwn(groupName(w.opts.Store.Marker()))
	if err != nil || len(g.Dirs()) != 0 {
		t.Errorf("its group is left: %v %v", g.Dirs(), err)
	}
	_ = g.Close()
}

// None is used that was started under another policy or from another program, or that has
// ended; they are replaced.
func TestPoolKeys(t *testing.T) {
	w := newWorld(t)
	w.run()
	defer func() { w.stop() }()
	w.until("two wait", func() bool { return w.count() == 2 })
	for what, change := range map[string]func(){
		"policy": func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.policy = policyOf(t, "warm: 2\nmaxSandboxes: 7")
		},
		"program": func() {
			b, err := os.ReadFile(w.opts.Gofer.Path)
			if err == nil {
				err = os.WriteFile(w.opts.Gofer.Path+".new", b, 0o755)
			}
			if err == nil {
				err = os.Rename(w.opts.Gofer.Path+".new", w.opts.Gofer.Path)
			}
			if err != nil {
				t.Error(err)
			}
		},
		"death": func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, s := range w.slots {
				p, err := process.Open(s.Gofer.Identity)
				if err == nil {
					err = errors.Join(p.Signal(unix.SIGKILL), p.Close())
				}
				if err != nil {
					t.Error(err)
				}
			}
		},
	} {
		old := w.recorded()
		change()
		if what == "death" {
			w.until("they are dead", func() bool { return alive(old...) <= 2 }) // or the pool has seen it
		}
		// The pool may have made others by now: what counts is which these are.
		if taken := w.Take(w.key(), false); taken != nil {
			for _, id := range taken.Identities() {
				if slices.Contains(old, id) {
					t.Errorf("%s: one of before is used", what)
				}
			}
			if err := taken.Abandon(); err != nil {
				t.Error(err)
			}
		}
		w.Wake()
		w.until("others wait", func() bool {
			ids := w.recorded()
			return w.count() == 2 && len(ids) == 4 && alive(ids...) == 4 && ids[0] != old[0]
		})
		if n := alive(old...); n != 0 {
			t.Errorf("%s: %d of before live", what, n)
		}
	}
	defer w.Starting()() // one that never ends keeps nothing of another policy
	w.mu.Lock()
	w.policy = policyOf(t, "warm: 0")
	w.mu.Unlock()
	w.Wake()
	w.until("none waits", func() bool { return w.count() == 0 && w.recorded() == nil })
}

// The next daemon ends what is on record and waits, and nothing else.
func TestSweep(t *testing.T) {
	w := newWorld(t)
	start := func(state string) *pair.Waiting {
		t.Helper()
		sentry, err := os.Open(w.opts.Sentry.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer sentry.Close()
		p, err := pair.StartWaiting(&pair.WaitingLaunch{Sentry: sentry, Gofer: sentry, State: state, CgroupFD: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		return p
	}
	state := w.opts.Store.Marker()
	mine, other := start(state), start(state+"-other")
	ids := append(mine.Identities(), other.Identities()...)
	if err := write(w.opts.Store.RootDir(), ids, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(ids[:2]...) != 0 || alive(ids[2:]...) != 2 {
		t.Errorf("%d of ours live, and %d that are called otherwise", alive(ids[:2]...), alive(ids[2:]...))
	}
	if w.recorded() != nil {
		t.Error("they are on record")
	}
	if err := errors.Join(mine.Abandon(), other.Abandon()); err != nil {
		t.Error(err)
	}
	// What can't be read is of no daemon that lives.
	if err := os.WriteFile(filepath.Join(w.opts.Store.Path(), File), []byte(`{"version":1,"processes":[{"pid":1}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Sweep(t.Context()); err == nil || w.recorded() != nil {
		t.Errorf("%v %v", err, w.recorded())
	}
}

func TestIsWaiting(t *testing.T) {
	t.Parallel()
	for cmdline, want := range map[string]bool{
		"sandboxctl-waiting\x00sentry\x00/s\x00   \x00":  true,
		"sandboxctl-waiting\x00gofer\x00/s\x00\x00":      true,
		"sandboxctl-waiting\x00sentry\x00/s2\x00   \x00": false,
		"sandboxctl-waiting\x00sentry\x00/s":             false,
		"sandboxctl-sentry\x00sentry\x00/s\x00   \x00":   false,
		"": false,
	} {
		if IsWaiting([]byte(cmdline), "/s") != want {
			t.Errorf("%q: %v", cmdline, !want)
		}
	}
	for _, bad := range []string{"", "{}", `{"version":2}`, `{"version":1,"more":1}`, `{"version":1,"processes":[{"pid":0}]}`} {
		if ids, err := decode([]byte(bad)); err == nil {
			t.Errorf("%s: %v", bad, ids)
		}
	}
}

// The kernel is told to get ready for a move by a start that can take what waits, and by no
// other: not without processes, not by an unfit set-up, and never with `warm: 0`.
func TestExpect(t *testing.T) {
	t.Parallel()
	policy, off := policyOf(t, "warm: 1"), policyOf(t, "warm: 0")
	fit := func() *setup.Setup {
		return &setup.Setup{Containers: []setup.Container{{Spec: &specs.Spec{Process: &specs.Process{}}}}}
	}
	network, direct, limited := fit(), fit(), fit()
	network.HostNetwork, direct.DirectFS, limited.Limits.Memory = true, true, 1<<29
	offered := []slot{{Waiting: &pair.Waiting{}}}
	for what, c := range map[string]struct {
		slots  []slot
		policy *hostpolicy.Policy
		st     *setup.Setup
		want   int
	}{
		"fit": {offered, policy, fit(), 1}, "none waits": {nil, policy, fit(), 0}, "off": {offered, off, fit(), 0}, "not of a manifest": {offered, nil, fit(), 0},
		"network": {offered, policy, network, 0}, "direct": {offered, policy, direct, 0}, "limited": {offered, policy, limited, 0},
	} {
		n := 0
		p := &Pool{slots: c.slots, wakes: make(chan struct{}, 1), hasten: func() { n++ }}
		ended := p.Starting()
		if p.Expect(c.policy, c.st); n != c.want {
			t.Errorf("%s: %d times, expected %d", what, n, c.want)
		}
		ended()
	}
	var none *Pool
	none.Expect(policy, fit())
}

// Those with a warm sentry are counted for themselves, and the others are made first.
func TestMissing(t *testing.T) {
	t.Parallel()
	waits, warm := slot{Waiting: &pair.Waiting{}}, slot{Waiting: &pair.Waiting{Warm: &pair.Warm{}}}
	for what, c := range map[string]struct {
		slots     []slot
		want      count
		now, warm bool
	}{
		"none is wanted":     {nil, count{}, false, false},
		"both are missing":   {nil, count{1, 1}, true, false},
		"warm ones":          {[]slot{waits}, count{1, 1}, true, true},
		"others":             {[]slot{warm}, count{1, 1}, true, false},
		"none":               {[]slot{warm, waits}, count{1, 1}, false, false},
		"more than wanted":   {[]slot{warm, warm}, count{0, 1}, false, false},
		"the wrong ones":     {[]slot{waits, waits}, count{0, 1}, true, true},
		"only warm ones":     {nil, count{0, 2}, true, true},
		"one of two is warm": {[]slot{warm}, count{0, 2}, true, true},
	} {
		p := &Pool{slots: c.slots}
		if wait, now, warm := p.missing(c.want); wait != 0 || now != c.now || now && warm != c.warm {
			t.Errorf("%s: %s %v %v", what, wait, now, warm)
		}
	}
}

// Of the group of those that wait only these are ended, stopped or not, also without a record.
// What a start had taken when its daemon died is for the record of its sandbox.
func TestSweepMembers(t *testing.T) {
	w := newWorld(t)
	group, _, err := w.opts.Cgroups.Create(groupName(w.opts.Store.Marker()), cgroup.Limits{}, cgroup.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	program, err := os.Open(w.opts.Sentry.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	waits, err := pair.StartWaiting(&pair.WaitingLaunch{Sentry: program, Gofer: program, State: w.opts.Store.Marker(), CgroupFD: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := waits.Abandon(); err != nil {
			t.Error(err)
		}
	}()
	if err := waits.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	taken := exec.Command("/bin/sleep", "1000")
	if err := taken.Start(); err != nil {
		t.Fatal(err)
	}
	ended := func() { _ = taken.Process.Kill(); _ = taken.Wait() }
	defer ended()
	for _, pid := range []int{waits.Sentry.PID, waits.Gofer.PID, taken.Process.Pid} {
		if err := group.Add(pid); err != nil {
			t.Fatal(err)
		}
	}
	stopped, err := process.Open(waits.Sentry.Identity)
	if err == nil {
		err = errors.Join(stopped.Signal(unix.SIGSTOP), stopped.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	w.opts.KillTimeout = 5 * time.Second
	if err := w.Sweep(t.Context()); err == nil {
		t.Error("a group with a process in it was removed")
	}
	if n := alive(waits.Identities()...); n != 0 {
		t.Errorf("%d of 2 that wait live", n)
	}
	if err := taken.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("what does not wait was ended: %v", err)
	}
	ended()
	if err := w.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
}

// Each failure in a row makes the wait twice as long, up to a bound; one success ends that.
func TestBackoff(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int]time.Duration{0: 0, 1: retry, 2: 2 * retry, 4: 8 * retry, 7: maxRetry, 1000: maxRetry} {
		if got := backoff(failures); got != want {
			t.Errorf("%d failures: %s, expected %s", failures, got, want)
		}
	}
	p := &Pool{opts: Options{Log: slog.New(slog.DiscardHandler)}}
	p.tell(t.Context(), false, errors.New("x"))
	p.tell(t.Context(), false, errors.New("x"))
	if wait, now, _ := p.missing(count{pairs: 1}); now || wait <= retry || wait > 2*retry {
		t.Errorf("after two failures: %s %v", wait, now)
	}
	// It keeps nobody from a warm one, nor the other way round.
	if wait, now, warm := p.missing(count{pairs: 1, warm: 1}); !now || !warm {
		t.Errorf("of the others, after two failures: %s %v %v", wait, now, warm)
	}
	p.tell(t.Context(), true, errors.New("x"))
	if wait, now, _ := p.missing(count{pairs: 1, warm: 1}); now || wait > retry {
		t.Errorf("after failures of both: %s %v", wait, now)
	}
	p.tell(t.Context(), false, nil)
	if wait, now, _ := p.missing(count{pairs: 1}); !now {
		t.Errorf("after a success: %s", wait)
	}
}

// As many wait as the memory of the host has room for; they leave when there is less, and
// come back when there is more.
func TestPoolMemory(t *testing.T) {
	w := newWorld(t)
	w.free = 2*roomToMake - 1
	w.run()
	defer func() { w.stop() }()
	set := func(free uint64) {
		w.mu.Lock()
		w.free = free
		w.mu.Unlock()
		w.Wake()
	}
	w.until("one waits", func() bool { return w.count() == 1 })
	w.Wake()
	time.Sleep(2 * quiet)
	if n := w.count(); n != 1 {
		t.Errorf("%d wait, there is memory for one", n)
	}
	set(2 * roomToMake)
	w.until("two wait", func() bool { return w.count() == 2 })
	set(2 * roomToKeep) // less than is needed to make them
	time.Sleep(quiet / 2)
	if n := w.count(); n != 2 {
		t.Errorf("%d wait, two were to stay", n)
	}
	set(2*roomToKeep - 1)
	w.until("one leaves", func() bool { return w.count() == 1 })
	set(roomToKeep - 1)
	w.until("none waits", func() bool { return w.count() == 0 && w.recorded() == nil })
	if lack := lackOf(w); lack == "" {
		t.Error("it is not said why none waits")
	}
	set(64 << 30)
	w.until("two wait again", func() bool { return w.count() == 2 })
	// Also while a start is under way, which may have a hook of minutes: none is made then, and none
	// stays for which there is no memory.
	ended := w.Starting()
	set(roomToKeep)
	w.until("one leaves during a start", func() bool { return w.count() == 1 })
	set(roomToKeep - 1)
	w.until("none waits during a start", func() bool { return w.count() == 0 && w.recorded() == nil })
	ended()
	set(64 << 30)
	w.until("two wait again", func() bool { return w.count() == 2 })
	if lack := lackOf(w); lack != "" {
		t.Errorf("it is said why none waits: %s", lack)
	}
}

// A host with little memory has none.
func TestRoom(t *testing.T) {
	t.Parallel()
	for free, want := range map[uint64][2]int{
		0: {0, 0}, roomToKeep - 1: {0, 0}, roomToKeep: {0, 1}, roomToMake: {1, 2}, 3*roomToMake + 1: {3, 6},
	} {
		if most, keep := Room(free); most != want[0] || keep != want[1] {
			t.Errorf("%d: %d and %d, expected %v", free, most, keep, want)
		}
	}
}

// lackOf is why none waits.
func lackOf(w *world) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lacking.pairs
}
