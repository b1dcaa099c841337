// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"hash/fnv"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/links"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/projquota/projquotatest"
)

// crashScenario is an operation that a daemon is killed in.
type crashScenario struct {
	name string
	// prepare makes what there is before; change is what the daemon acts on;
	// later is what changes while there is none, after the crash.
	prepare, change, later func(*crashWorld)
	// runs is what the application has written in the end, gone whether there is
	// no sandbox then, failures what its record says.
	runs     string
	gone     bool
	failures int
	// keeps says that the processes there were before must go on.
	keeps bool
	// starts says that a daemon which dies after it has opened the gates leaves
	// a sandbox whose processes must go on.
	starts bool
	// pulls says that its image is fetched.
	pulls bool
}

func running(w *crashWorld) {
	w.web("a", "0s")
	w.converge()
	w.written("a")
}

// written waits until the application has written this.
func (w *crashWorld) written(want string) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); w.runs() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) || len(w.runs()) > len(want) {
			w.Fatalf("the application was started: %q, expected %q", w.runs(), want)
		}
	}
}

// smallDisk puts the state on a disk of its own.
func (w *crashWorld) smallDisk() {
	must(w.T, os.MkdirAll(w.path("s"), 0o700))
	must(w.T, unix.Mount("tmpfs", w.path("s"), "tmpfs", 0, "size=2m,mode=0700"))
	w.Cleanup(func() {
		w.cleared.Do(w.clear)
		_ = unix.Unmount(w.path("s"), unix.MNT_DETACH)
	})
}

// fillDisk takes all of its room.
func (w *crashWorld) fillDisk() {
	f, err := os.Create(w.path("s/ballast"))
	must(w.T, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
}

// declared has the named volume declared before a sandbox uses it, with a size where the kernel
// can enforce one.
func declared(w *crashWorld) {
	size := ""
	if projquotatest.KernelHas() {
		must(w.T, projquotatest.Mount(w.path("quota.img"), w.path("s"), 64))
		w.Cleanup(func() {
			w.cleared.Do(w.clear)
			_ = unix.Unmount(w.path("s"), unix.MNT_DETACH)
		})
		size = "size: 1Mi"
	}
	must(w.T, os.WriteFile(w.path("m/kept.volume.yaml"), []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: Volume\nmetadata: {name: kept}\nspec: {"+size+"}\n"), 0o644))
}

// quotaPoints are those that only a kernel with project quotas comes to.
var quotaPoints = []crashpoint.Point{crashpoint.VolumeProjects, crashpoint.VolumeProject, crashpoint.VolumeLimit}

func removeWeb(w *crashWorld) { must(w.T, os.Remove(w.path("m/web.yaml"))) }

// litter is what daemons before may have left: a full journal that ends in the
// middle of a line, temporary files, trash, half of a volume, and logs of long ago.
func litter(w *crashWorld) {
	line := `{"at":"2026-01-02T03:04:05Z","type":"Normal","reason":"Started","message":"` + strings.Repeat("x", 900) + "\"}\n"
	must(w.T, os.WriteFile(w.path("s/events.jsonl"), []byte(strings.Repeat(line, 4<<20/len(line))+line[:400]), 0o600))
	for _, p := range []string{"", "sandboxes/web/"} {
		must(w.T, os.WriteFile(w.path("s/"+p+atomicfile.TempPrefix+"0011"), []byte("{"), 0o600))
	}
	must(w.T, os.MkdirAll(w.path("s/trash/old.0011/logs"), 0o700))
	must(w.T, os.WriteFile(w.path("s/trash/old.0011/logs/1.log"), nil, 0o600))
	must(w.T, os.MkdirAll(w.path("s/sandboxes/web/logs/0/deep/er"), 0o700))
	must(w.T, os.MkdirAll(w.path("s/volumes/unfinished/data"), 0o700))
	must(w.T, os.WriteFile(w.path("s/sandboxes/web/logs/0.log"), nil, 0o600)) // of an earlier version
}

// wired gives the world a namespace with an interface to lend.
func wired(w *crashWorld) {
	h := fnv.New64a()
	fmt.Fprint(h, w.dir)
	id := fmt.Sprintf("sbcrash-%x", h.Sum64())
	outer := namedNetns(w.T, id+"-out")
	w.netns = id + "-in"
	w.inner = namedNetns(w.T, w.netns)
	wireUp(w.T, outer, w.inner, "/run/netns/"+w.netns)
	// Before the namespace goes.
	w.Cleanup(func() { w.cleared.Do(w.clear) })
}

func (w *crashWorld) webOnNetwork() {
	w.web("a", "0s", "  network: {mode: netns, netns: "+w.netns+"}\n")
}

// hosted gives the world a network namespace for its daemons: they make links and rules.
func hosted(w *crashWorld) {
	// Its /etc/hosts is the daemon's.
	w.root = "{host: {}}"
	var err error
	w.host, err = netns.New()
	must(w.T, err)
	w.Cleanup(func() {
		w.cleared.Do(w.clear)
		w.host.Close()
	})
}

func (w *crashWorld) webOnBridge() {
	w.web("a", "0s", "  network: {ports: [{containerPort: 80, hostPort: 8080}]}\n")
}

// joined looks that a sandbox that runs has its link, and that there is nothing of others.
func (w *crashWorld) joined() {
	w.Helper()
	var have *links.Host
	must(w.T, w.host.Do(func() (err error) { have, err = links.Look(); return err }))
	rec := w.rec()
	if rec == nil || rec.Phase != actual.PhaseRunning {
		if len(have.Links) > 0 {
			w.Errorf("links are left: %+v", have.Links)
		}
		return
	}
	if rec.CNI != nil {
		return // it has a link that is not ours
	}
	if len(have.Links) != 1 || len(rec.Attachments) != 1 || have.Links[0].Name != rec.Attachments[0].Link ||
		!slices.Equal(have.Links[0].Addresses, []netip.Addr{rec.Attachments[0].Address4, rec.Attachments[0].Address6}) {
		w.Errorf("links %+v of %+v", have.Links, rec.Attachments)
	}
}

// plugged gives the world two networks of CNI, a namespace for its daemons, and leases of its own.
func plugged(w *crashWorld) {
	hosted(w)
	w.root = ""
	if _, err := os.Stat("/usr/lib/cni/bridge"); err != nil {
		hosttest.Lacks(w.T, "no plugins of CNI: %v", err)
	}
	must(w.T, os.Mkdir(w.path("net.d"), 0o755))
	for i, name := range cniNetworks {
		must(w.T, os.WriteFile(w.path("net.d/"+name+".conflist"), fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": %q, "plugins": [{"type": "bridge", "bridge": "%s0", "isGateway": true,
			"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.66.%d.0/24"}]]}}]}`, name, name, w.path("leases"), i), 0o644))
	}
	policy := strings.Replace(policyFor(w.dir), "network: {", "network: {cni: {networks: ['*'], configDir: "+w.path("net.d")+"}, ", 1)
	must(w.T, os.WriteFile(w.path("policy.yaml"), []byte(policy), 0o644))
}

// cniNetworks are those of plugged.
var cniNetworks = []string{"lab", "side"}

func (w *crashWorld) webOnCNI() { w.web("a", "0s", "  network: {mode: cni, cni: [lab, side]}\n") }

// leased looks that a sandbox that runs has its one lease of each network and its namespace, and
// that there is nothing of others.
func (w *crashWorld) leased() {
	w.Helper()
	leases, err := filepath.Glob(w.path("leases/*/10.66.*"))
	must(w.T, err)
	rec := w.rec()
	if rec == nil || rec.Phase != actual.PhaseRunning || rec.CNI == nil {
		if len(leases) > 0 {
			w.Errorf("leases are left: %v", leases)
		}
		return
	}
	if len(leases) != len(cniNetworks) || len(rec.MoreCNI) != 1 || len(rec.CNI.Result) == 0 || len(rec.MoreCNI[0].Result) == 0 {
		w.Errorf("leases %v of %+v", leases, append(rec.MoreCNI, *rec.CNI))
	}
	for _, lease := range leases {
		if b, err := os.ReadFile(lease); err != nil || !strings.HasPrefix(string(b), rec.CNI.ContainerID) {
			w.Errorf("the lease %s is that of %q, expected %s: %v", lease, b, rec.CNI.ContainerID, err)
		}
	}
	n, err := netns.Open(rec.CNI.Netns)
	must(w.T, err)
	n.Close()
	w.cnis = append(w.cnis, rec.CNI.Netns)
}

// unpinned looks that no namespace is left of a sandbox that is gone.
func (w *crashWorld) unpinned() {
	for _, p := range w.cnis {
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			w.Errorf("the namespace %s is left: %v", p, err)
		}
	}
}

var crashScenarios = []crashScenario{
	{name: "create", change: func(w *crashWorld) { w.web("a", "0s", "  overlay: disk\n  overlaySize: 16Mi\n") }, runs: "a", starts: true},
	{name: "declare", change: declared, gone: true},
	{name: "use-declared", prepare: func(w *crashWorld) {
		declared(w)
		w.converge()
	}, change: func(w *crashWorld) { w.web("a", "0s") }, runs: "a", starts: true},
	// What was begun is not wanted any more when the next daemon comes.
	{name: "abandon", change: func(w *crashWorld) { w.web("a", "0s") }, later: removeWeb, gone: true},
	{name: "replace", prepare: running, change: func(w *crashWorld) { w.web("b", "0s") }, runs: "a b", starts: true},
	{name: "restart", prepare: func(w *crashWorld) {
		w.web("a", "1m")
		w.converge()
		w.written("a")
		litter(w)
	}, change: restartWeb, runs: "a a", starts: true},
	{name: "resume", prepare: snapshotted, change: restartWeb, runs: "a"},
	{name: "killed", prepare: running, change: func(w *crashWorld) {
		p, err := process.Open(*w.rec().Sentry)
		must(w.T, err)
		defer p.Close()
		must(w.T, p.Signal(unix.SIGKILL))
		must(w.T, p.Wait(w.Context()))
	}, runs: "a a", failures: 1, starts: true},
	{name: "delete", prepare: running, change: removeWeb, runs: "a", gone: true},
	{name: "full", prepare: func(w *crashWorld) {
		w.smallDisk()
		running(w)
		w.fillDisk()
	}, change: removeWeb, runs: "a", gone: true},
	{name: "adopt", prepare: running, runs: "a", keeps: true},
	// Its application may be told twice, and reads the new files in any case.
	{name: "refresh", prepare: reloading, change: func(w *crashWorld) { w.value("b") }, runs: "a b", keeps: true},
	{name: "pull", prepare: (*crashWorld).serve, change: (*crashWorld).webOfImage, runs: "a", starts: true, pulls: true},
	{name: "join", prepare: hosted, change: (*crashWorld).webOnBridge, runs: "a"},
	{name: "part", prepare: func(w *crashWorld) {
		hosted(w)
		w.webOnBridge()
		w.converge()
		w.written("a")
	}, change: removeWeb, runs: "a", gone: true},
	{name: "restrict", prepare: func(w *crashWorld) {
		hosted(w)
		w.webOnBridge()
		w.converge()
		w.written("a")
	}, change: func(w *crashWorld) {
		w.web("a", "0s", "  network: {egress: {default: deny}, ports: [{containerPort: 80, hostPort: 8081}]}\n")
	}, runs: "a", keeps: true},
	{name: "plug", prepare: plugged, change: (*crashWorld).webOnCNI, runs: "a"},
	{name: "unplug", prepare: func(w *crashWorld) {
		plugged(w)
		w.webOnCNI()
		w.converge()
		w.written("a")
		w.leased()
	}, change: removeWeb, runs: "a", gone: true},
	{name: "close", prepare: func(w *crashWorld) {
		hosted(w)
		w.webOnBridge()
		w.converge()
		w.written("a")
	}, change: func(w *crashWorld) {
		must(w.T, os.WriteFile(w.path("m/default.yaml"), []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: Network\nmetadata: {name: default}\nspec: {internal: true}\n"), 0o644))
	}, runs: "a", keeps: true},
	{name: "lend", prepare: wired, change: (*crashWorld).webOnNetwork, runs: "a"},
	{name: "return", prepare: func(w *crashWorld) {
		wired(w)
		w.webOnNetwork()
		w.converge()
		w.written("a")
	}, change: removeWeb, runs: "a", gone: true},
}

// crashCase is one kill, or two.
type crashCase struct {
	scenario  *crashScenario
	at        moment
	second    moment // in the daemon that comes after the first
	goferDies bool
}

func (c *crashCase) String() string {
	s := c.scenario.name + "/" + strings.ReplaceAll(c.at.String(), " ", "_")
	if c.goferDies {
		s += "_gofer_dies"
	}
	if c.second.point != "" {
		s += "/then_" + strings.ReplaceAll(c.second.String(), " ", "_")
	}
	return s
}

// crashed is what became of the cases.
type crashed struct {
	sync.Mutex
	at     map[string]int // kills, by moment without number
	double int
}

// run tries a case. How often a point is passed depends on what the kernel does
// meanwhile (addresses of its own on a link, say): one that was not passed as
// often as when it was discovered is tried at its first time.
func (c *crashCase) run(t *testing.T, done *crashed) {
	if c.try(t, done) {
		return
	}
	if c.at.n == 1 {
		t.Errorf("%s was not passed", c.at)
		return
	}
	first := *c
	first.at.n = 1
	t.Run("first", func(t *testing.T) {
		if !first.try(t, done) {
			t.Errorf("%s was not passed", first.at)
		}
	})
}

// try kills a daemon at a moment of a scenario, starts another, and looks at
// everything. It reports whether there was a kill.
func (c *crashCase) try(t *testing.T, done *crashed) (killed bool) {
	s := c.scenario
	w := newCrashWorld(t)
	for _, step := range []func(*crashWorld){s.prepare, s.change} {
		if step != nil {
			step(w)
		}
	}
	before := w.rec()
	trace, killed := w.armed(c.at, c.goferDies)
	// A daemon that runs once ends early when what it needs is not there yet: a process
	// that another test has just forked holds a file that a start reads, say.
	for deadline := time.Now().Add(time.Minute); !killed && !w.converged && time.Now().Before(deadline); {
		trace, killed = w.armed(c.at, c.goferDies)
	}
	at := w.rec()
	if killed {
		done.Lock()
		done.at[c.at.key()]++
		done.Unlock()
	}
	if s.later != nil {
		s.later(w)
	}
	if c.second.point != "" {
		if _, again := w.armed(c.second, false); again {
			done.Lock()
			done.double++
			done.Unlock()
		}
		w.rec()
	}
	w.converge()
	after := w.rec()
	w.settled()
	w.copied()
	if w.host != nil {
		w.joined()
		w.leased()
	}
	if s.pulls {
		w.pulled()
	}
	if s.gone {
		if after != nil {
			t.Errorf("it is %s, expected to be gone", after.Phase)
		}
		w.unpinned()
		if s.runs != "" {
			w.written(s.runs)
		}
		w.kept()
		return killed
	}
	if after == nil || after.Phase != actual.PhaseRunning {
		t.Fatalf("the record is %+v", after)
	}
	// Once for each time that it should be, and never more.
	w.written(s.runs)
	w.kept()
	failures := s.failures
	if c.goferDies {
		failures = after.App().Failures // a create failed, which counts
		if failures > s.failures+1 {
			t.Errorf("%d failures for one gofer", failures)
		}
	}
	if after.App().Failures != failures {
		t.Errorf("%d failures on record, expected %d; the last: %+v", after.App().Failures, failures, after.App().LastExit)
	}
	if s.keeps && (!reflect.DeepEqual(after.Sentry, before.Sentry) || !reflect.DeepEqual(after.Gofer, before.Gofer)) {
		t.Errorf("%v and %v became %v and %v", before.Sentry, before.Gofer, after.Sentry, after.Gofer)
	}
	released := slices.ContainsFunc(trace, func(m moment) bool { return m.key() == "after sentry-gate" })
	if s.starts && released && !c.goferDies && c.second.point == "" && (!reflect.DeepEqual(after.Sentry, at.Sentry) || !reflect.DeepEqual(after.Gofer, at.Gofer)) {
		t.Errorf("past its gate, and %v and %v became %v and %v", at.Sentry, at.Gofer, after.Sentry, after.Gofer)
	}
	return killed
}

// moments runs a scenario to its end and returns what was passed.
func (s *crashScenario) moments(t *testing.T) []moment {
	w := newCrashWorld(t)
	for _, step := range []func(*crashWorld){s.prepare, s.change} {
		if step != nil {
			step(w)
		}
	}
	w.rec()
	trace, killed := w.armed(moment{}, false)
	if killed || len(trace) == 0 {
		t.Fatalf("%d moments, killed %v", len(trace), killed)
	}
	w.converge()
	w.rec()
	w.settled()
	w.copied()
	if s.pulls {
		w.pulled()
	}
	if s.runs != "" {
		w.written(s.runs)
	}
	return trace
}

// crashPoints are the names in the registry.
func crashPoints(t *testing.T) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../../actual/crashpoint/points.go", nil, 0)
	must(t, err)
	var out []string
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			for _, val := range v.Values {
				s, err := strconv.Unquote(val.(*ast.BasicLit).Value)
				must(t, err)
				out = append(out, s)
			}
		}
		return true
	})
	if len(out) < 50 {
		t.Fatalf("only %d crash points", len(out))
	}
	return out
}

// TestCrash kills the real daemon before and after every side effect, and the
// next one must make of it what would have been. With SANDBOXCTL_CRASH=all at
// every moment of every scenario, else at each point once before and once after
// it, in scenarios that take turns.
func TestCrash(t *testing.T) {
	requireHost(t)
	_, err := crashable()
	must(t, err)
	bystanders(t)

	all := map[*crashScenario][]moment{}
	var mu sync.Mutex
	t.Run("discover", func(t *testing.T) {
		for i := range crashScenarios {
			s := &crashScenarios[i]
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				m := s.moments(t)
				mu.Lock()
				defer mu.Unlock()
				all[s] = m
			})
		}
	})
	if t.Failed() {
		return
	}
	cases := chooseCrashes(all, os.Getenv("SANDBOXCTL_CRASH") == "all")
	done := &crashed{at: map[string]int{}}
	t.Run("kill", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				c.run(t, done)
			})
		}
	})
	kills := 0
	for _, n := range done.at {
		kills += n
	}
	t.Logf("%d scenarios, %d kills at %d moments of %d points, %d of them with a second one", len(all), kills, len(done.at), len(crashPoints(t)), done.double)
	if len(all) < len(crashScenarios) {
		return // -run has chosen some
	}
	if done.double == 0 {
		t.Error("no daemon was killed twice")
	}
	for _, p := range crashPoints(t) {
		if slices.Contains(slices.Concat(volumePoints, snapshotPoints), p) || slices.Contains(waitingPoints, crashpoint.Point(p)) || !projquotatest.KernelHas() && slices.Contains(quotaPoints, crashpoint.Point(p)) {
			continue // TestCrashVolumes, TestCrashSnapshots, TestCrashWaiting and TestProjectsAfterCrash have them
		}
		for _, when := range []string{"before ", "after "} {
			if done.at[when+p] == 0 {
				t.Errorf("nothing was killed %s%s", when, p)
			}
		}
	}
}

// chooseCrashes makes cases of moments: all, or one for each point before and
// after.
func chooseCrashes(all map[*crashScenario][]moment, everything bool) []*crashCase {
	var cases []*crashCase
	byKey := map[string][]*crashCase{}
	for i := range crashScenarios {
		s := &crashScenarios[i]
		for _, m := range all[s] {
			c := &crashCase{scenario: s, at: m}
			cases = append(cases, c)
			byKey[m.key()] = append(byKey[m.key()], c)
			switch {
			case strings.HasPrefix(m.point, "gofer.") && s.name == "create":
				cases = append(cases, &crashCase{scenario: s, at: m, goferDies: true})
			case s.pulls && slices.Contains(imagePoints, m.point):
				m.hold = true
				cases = append(cases, &crashCase{scenario: s, at: m})
			}
		}
	}
	if !everything {
		cases = nil
		turn := 0
		for _, key := range slices.Sorted(maps.Keys(byKey)) {
			c := byKey[key][turn%len(byKey[key])]
			turn += 7 // another scenario, and another number
			cases = append(cases, c)
		}
		for _, key := range []string{"after gofer.release", "before gofer.serve"} {
			cases = append(cases, &crashCase{scenario: &crashScenarios[0], at: momentOf(key), goferDies: true})
		}
		for i := range crashScenarios {
			for _, key := range []string{"after pull-write", "before pull-rename", "before pending-sync", "after pending-rename"} {
				if at := momentOf(key); crashScenarios[i].pulls {
					at.hold = true
					cases = append(cases, &crashCase{scenario: &crashScenarios[i], at: at})
				}
			}
		}
	}
	// Twice: what the second daemon does is found out by where the first died.
	var seconds []moment
	for _, key := range []string{"before record-put", "after record-put", "after kill-sentry", "after cgroup-remove", "after sentry-spawn", "after start-root"} {
		seconds = append(seconds, momentOf(key))
	}
	seconds[3].n = 2
	step := 25
	if everything {
		step = 6
	}
	n := len(cases)
	for i := 0; i < n; i += step {
		c := *cases[i]
		c.goferDies, c.second = false, seconds[(i/step)%len(seconds)]
		cases = append(cases, &c)
	}
	slices.SortStableFunc(cases, func(a, b *crashCase) int { return cmp.Compare(a.String(), b.String()) })
	return slices.CompactFunc(cases, func(a, b *crashCase) bool { return a.String() == b.String() })
}

// momentOf is the first with a key.
func momentOf(key string) moment {
	m, _ := parseMoment(key + " 1")
	return m
}

// bystanders are processes that nobody may signal, some of them called like
// ours. They are looked at when the test is over.
func bystanders(t *testing.T) {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	must(t, err)
	for _, argv0 := range []string{"sleep", companion.SentryName, gofer.Argv0, "sandboxctl"} {
		cmd := exec.Command(sleep)
		cmd.Args = []string{argv0, "100000"}
		must(t, cmd.Start())
		pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		must(t, err)
		t.Cleanup(func() {
			defer unix.Close(pidfd)
			if process.Reap(pidfd) {
				t.Errorf("a bystander called %s was killed", argv0)
				return
			}
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
		})
	}
}

// A release build has no crash points: no function of theirs, no name and not the
// variable that arms them. In a build with the tag all of it is seen.
func TestCrashPointsAbsent(t *testing.T) {
	// With their symbols, which the programs that are shipped do not have.
	release := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-o", release, ".", "../sandboxctl-gofer", "../sandboxctl-image")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	tagged, err := crashable()
	must(t, err)
	const variable = "SANDBOXCTL_CRASHPOINTS"
	want := append(slices.DeleteFunc(crashPoints(t), func(p string) bool {
		return !strings.ContainsAny(p, "-.") // a common word tells nothing
	}), variable)
	if len(want) < 40 {
		t.Fatalf("only %d names to look for", len(want))
	}
	found := map[string]bool{}
	look := func(program string, armed bool) {
		b, err := os.ReadFile(program)
		must(t, err)
		for _, s := range want {
			has := bytes.Contains(b, []byte(s))
			found[s] = found[s] || has && armed
			if has && !armed || s == variable && has != armed {
				t.Errorf("%s: has %q: %v", program, s, has)
			}
		}
	}
	symbols := func(program string, armed bool) {
		out, err := exec.Command("go", "tool", "nm", program).Output()
		must(t, err)
		if strings.Contains(string(out), "actual/crashpoint.") != armed {
			t.Errorf("%s: has a symbol of crash points: %v, expected %v", program, !armed, armed)
		}
	}
	for _, name := range []string{"sandboxctl", companion.GoferName, companion.ImageName} {
		for dir, armed := range map[string]bool{release: false, filepath.Dir(tagged): true} {
			look(filepath.Join(dir, name), armed)
			symbols(filepath.Join(dir, name), armed)
		}
		look(filepath.Join(binDir, name), false)
	}
	look(filepath.Join(binDir, companion.SentryName), false)
	for _, s := range want {
		if !found[s] {
			t.Errorf("%q is in no program with crash points", s)
		}
	}
}
