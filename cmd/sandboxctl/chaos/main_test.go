// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/invariants"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/wire"
)

// binDir holds the three real binaries.
var binDir string

func TestMain(m *testing.M) {
	switch os.Args[0] { // os.Exit waits a second for the race detector
	case filteredName:
		fmt.Fprintln(os.Stderr, filtered())
		unix.Exit(1)
	case canaryName:
		unix.Exit(canary())
	case companion.SentryName:
		unix.Exit(stubSentry())
	case wire.WaitingName:
		unix.Exit(stubWaits())
	}
	flag.Parse()
	code, err := func() (int, error) {
		binDir = os.Getenv("SANDBOXCTL_BIN")
		if binDir == "" {
			dir, err := os.MkdirTemp("", "sandboxctl-bin-")
			if err != nil {
				return 1, err
			}
			defer os.RemoveAll(dir)
			cmd := exec.Command("go", "build", "-trimpath", "-o", dir, "..", "../../sandboxctl-gofer", "../../sandboxctl-image", "../../sandboxctl-sentry")
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				return 1, fmt.Errorf("build: %w\n%s", err, out)
			}
			binDir = dir
		}
		return m.Run(), nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// requireHost skips a test that needs a host on which sandboxes can run, or
// fails it where that is required.
func requireHost(t *testing.T) {
	t.Helper()
	out, err := exec.Command(filepath.Join(binDir, "sandboxctl"), "--state", t.TempDir()+"/none", "doctor").CombinedOutput()
	if err == nil && os.Geteuid() == 0 {
		return
	}
	hosttest.Lacks(t, "this host can't run sandboxes:\n%s", out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// number is a number of the environment: ROUNDS=10000 make soak.
func number(t *testing.T, name string, standard int64) int64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return standard
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// patience bounds every wait. A loaded machine is slow; what takes this long has
// failed.
const patience = 90 * time.Second

// world is a state directory, a manifests directory and their daemon.
type world struct {
	t         testing.TB
	dir       string
	manifests string
	state     string
	args      []string // of the daemon
	store     *actual.Store
	daemon    *daemon
	// prefix begins the names of its sandboxes and of nobody else's.
	prefix string
	// host is the network namespace that daemons are started in, nil for that of the test.
	host *netns.Namespace
	// decoded are the hashes of specs that texts of manifests hold, by name. Waits look at the
	// same texts again and again, and the race detector makes each reading dear.
	decoded map[string]map[string]string
}

// daemon is one process of it.
type daemon struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has been waited for
	err  error         // then
}

func newWorld(t testing.TB, args ...string) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{
		t: t, dir: dir, manifests: filepath.Join(dir, "m"), state: filepath.Join(dir, "s"),
		args:    append([]string{"daemon", "--allow-mass-delete"}, args...),
		prefix:  fmt.Sprintf("x%08x", rand.Uint32()),
		decoded: map[string]map[string]string{},
	}
	must(t, os.Mkdir(w.manifests, 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "rootfs", "bin"), 0o755))
	busybox, err := exec.LookPath("busybox")
	must(t, err)
	data, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "rootfs", "bin", "busybox"), data, 0o755))
	must(t, os.Mkdir(w.state, 0o700))
	policy := fmt.Sprintf("apiVersion: %[1]s\nkind: HostPolicy\nroot: {dirs: [{path: %[2]s, access: readWrite}], imagePaths: [{path: %[2]s, access: readWrite}]}\nhostPaths: [{path: %[2]s/files, access: readOnly}]\nminRestartDelay: 0s\n", desired.APIVersion, dir)
	must(t, os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o644))
	t.Cleanup(func() { _ = unix.Unmount(w.state, unix.MNT_DETACH) }) // what a test has mounted there
	t.Cleanup(w.cleanUp)
	return w
}

// cleanUp ends all that was started, also when the test has failed.
func (w *world) cleanUp() {
	if w.daemon != nil {
		_ = w.daemon.cmd.Process.Kill()
		<-w.daemon.done
	}
	if w.store != nil {
		w.store.Close()
	}
	store, err := actual.OpenStore(w.state)
	if err != nil {
		w.t.Errorf("clean up: %v", err)
		return
	}
	defer store.Close()
	if err := store.Lock(); err != nil {
		w.t.Errorf("clean up: %v", err)
		return
	}
	l, err := launcher.New(launcher.Options{Store: store})
	must(w.t, err)
	list, err := store.List()
	must(w.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, r := range list.Records {
		if err := l.Destroy(ctx, r.Name, actual.Ending{Reason: "TestOver"}); err != nil {
			w.t.Errorf("clean up: %v", err)
		}
	}
	for _, r := range list.Records {
		if err := l.Forget(ctx, r.Name); err != nil {
			w.t.Errorf("clean up: %v", err)
		}
	}
	// The daemon may have been killed while it wrote or removed something: the next
	// one sweeps that.
	if _, err := store.SweepTemps(); err != nil {
		w.t.Errorf("clean up: %v", err)
	}
	if _, err := store.SweepTrash(); err != nil {
		w.t.Errorf("clean up: %v", err)
	}
	if err := l.Warm.Sweep(ctx); err != nil {
		w.t.Errorf("clean up: %v", err)
	}
	if err := w.left(store); err != nil {
		w.t.Errorf("clean up: %v", err)
	}
}

func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(binDir, "sandboxctl"), args...)
	cmd.Env = w.env()
	return cmd
}

func (w *world) env() []string {
	return append(os.Environ(), "SANDBOXCTL_MANIFESTS="+w.manifests, "SANDBOXCTL_STATE="+w.state, "SANDBOXCTL_POLICY="+filepath.Join(w.dir, "policy.yaml"), "GOTRACEBACK=all")
}

// run runs a verb to its end.
func (w *world) run(args ...string) (string, error) {
	out, err := w.command(args...).CombinedOutput()
	return string(out), err
}

// start starts the daemon.
func (w *world) start() {
	w.t.Helper()
	w.startHow(func(*exec.Cmd) {})
	w.open()
}

// startHow starts the daemon, whose command how may change.
func (w *world) startHow(how func(*exec.Cmd)) {
	w.t.Helper()
	cmd := w.command(w.args...)
	how(cmd)
	d := &daemon{cmd: cmd, log: filepath.Join(w.dir, "daemon.log"), done: make(chan struct{})}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(w.t, err)
	defer log.Close()
	cmd.Stderr = log
	if w.host != nil {
		must(w.t, w.host.Do(cmd.Start))
	} else {
		must(w.t, cmd.Start())
	}
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	w.daemon = d
}

// open waits for the state directory to be one.
func (w *world) open() {
	w.t.Helper()
	if w.store != nil {
		return
	}
	w.until("the daemon has its state directory", func() error {
		if w.daemon.ended() {
			return nil
		}
		store, err := actual.OpenStoreReadOnly(w.state)
		if err == nil {
			w.store = store
		}
		return err
	})
}

// ended says whether a daemon has.
func (d *daemon) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// stop ends the daemon by a signal and waits for that.
func (w *world) stop(sig os.Signal) {
	w.t.Helper()
	_ = w.daemon.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-w.daemon.done:
	case <-time.After(patience):
		w.t.Fatalf("the daemon has not ended by %s\n%s", sig, w.tail())
	}
}

// log is what daemons have logged from an offset on.
func (w *world) logFrom(offset int64) string {
	b, err := os.ReadFile(filepath.Join(w.dir, "daemon.log"))
	if err != nil || int64(len(b)) < offset {
		return fmt.Sprint(err)
	}
	return string(b[offset:])
}

func (w *world) logSize() int64 {
	info, err := os.Stat(filepath.Join(w.dir, "daemon.log"))
	if err != nil {
		return 0
	}
	return info.Size()
}

func (w *world) tail() string {
	s := strings.Join(lines(w.logFrom(0), "level="), "\n") // no dumps of goroutines
	return s[max(0, len(s)-20000):]
}

// until waits for an error to go away.
func (w *world) until(what string, f func() error) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %s: %v\n%s", what, patience, err, w.tail())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// manifest is the text of one that differs from others by its variant.
func (w *world) manifest(name string, variant int, more string) string {
	return fmt.Sprintf(`apiVersion: sandboxctl.dev/v1alpha1
kind: Sandbox
metadata: {name: %s}
spec:
  root: {dir: %s/rootfs}
  command: [/bin/busybox, sleep, '100000']
  env: [{name: VARIANT, value: '%d'}]
  terminationGracePeriod: 0s
  backoff: {initial: 0s}
%s`, name, w.dir, variant, more)
}

func (w *world) file(name string) string { return filepath.Join(w.manifests, name+".yaml") }

// put renames a manifest into the directory.
func (w *world) put(name, text string) {
	w.t.Helper()
	tmp := filepath.Join(w.dir, name+".tmp")
	must(w.t, os.WriteFile(tmp, []byte(text), 0o644))
	must(w.t, os.Rename(tmp, w.file(name)))
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.Remove(w.file(name)); !errors.Is(err, fs.ErrNotExist) {
		must(w.t, err)
	}
}

// record is that of a name, nil if there is none.
func (w *world) record(name string) *actual.Record {
	w.t.Helper()
	rec, held, err := w.store.Get(name)
	must(w.t, err)
	if held != nil {
		w.t.Fatalf("the record of %s is held: %v", name, held)
	}
	return rec
}

// process opens one process of a sandbox, verified with its record, nil if
// there is none.
func (w *world) process(name, what string) *process.Handle {
	w.t.Helper()
	rec := w.record(name)
	if rec == nil {
		return nil
	}
	id := rec.Sentry
	if what == "gofer" {
		id = rec.Gofer
	}
	if id == nil {
		return nil
	}
	p, err := process.Open(*id)
	if errors.Is(err, process.ErrGone) {
		return nil
	}
	must(w.t, err)
	return p
}

// twin is both processes of a sandbox.
type twin struct{ sentry, gofer process.Identity }

// twins are the processes of all sandboxes that run.
func (w *world) twins() map[string]twin {
	w.t.Helper()
	list, err := w.store.List()
	must(w.t, err)
	out := map[string]twin{}
	for _, r := range list.Records {
		if r.Sentry != nil && r.Gofer != nil {
			out[r.Name] = twin{*r.Sentry, *r.Gofer}
		}
	}
	return out
}

func alive(id *process.Identity) bool {
	live, _ := process.LivenessOf(id)
	return live == process.Alive
}

// converged is nil if what runs is what the directory says, and nothing waits.
// It fails the test if the daemon has ended.
func (w *world) converged() error {
	if w.daemon.ended() {
		w.t.Fatalf("the daemon has ended: %v\n%s", w.daemon.err, w.tail())
	}
	return w.asManifests()
}

// asManifests is nil if what runs is what the directory says, and nothing waits.
// It does not ask the planner, which may be what is wrong.
func (w *world) asManifests() error {
	files, err := filepath.Glob(filepath.Join(w.manifests, "*.yaml"))
	must(w.t, err)
	want := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(w.t, err)
		maps.Copy(want, w.hashes(f, b))
	}
	list, err := w.store.List()
	if err != nil {
		return err
	}
	if len(list.Quarantined) > 0 {
		w.t.Fatalf("held: %v", list.Quarantined)
	}
	for _, r := range list.Records {
		hash, wanted := want[r.Name]
		delete(want, r.Name)
		switch {
		case !wanted:
			return fmt.Errorf("%s is there", r.Name)
		case r.Phase != actual.PhaseRunning || r.SpecHash != hash:
			return fmt.Errorf("%s is %s, %v", r.Name, r.Phase, r.App().LastExit)
		case !alive(r.Sentry) || !alive(r.Gofer):
			return fmt.Errorf("%s does not live", r.Name)
		}
	}
	if len(want) > 0 || len(list.Aborted) > 0 {
		return fmt.Errorf("missing %v, aborted %v", want, list.Aborted)
	}
	requests, err := w.store.Requests()
	if err != nil || len(requests) > 0 {
		return fmt.Errorf("requests %v: %w", requests, err)
	}
	return nil
}

// hashes are those of the specs in a manifest, by name.
func (w *world) hashes(file string, text []byte) map[string]string {
	if h, ok := w.decoded[string(text)]; ok {
		return h
	}
	docs, problems := desired.Decode(file, text)
	if len(docs) == 0 || len(problems) > 0 {
		w.t.Fatalf("%s is no manifest: %v", file, problems)
	}
	h := map[string]string{}
	for i := range docs {
		if docs[i].Sandbox != nil { // and no document that others refer to
			h[docs[i].Name] = desired.Hash(docs[i].Sandbox)
		}
	}
	if len(w.decoded) > 1000 { // a soak writes new ones for hours
		clear(w.decoded)
	}
	w.decoded[string(text)] = h
	return h
}

// left says what is on the host that should not be.
func (w *world) left(store *actual.Store) error {
	var found []invariants.Violation
	check := func() (err error) {
		found, err = invariants.Check(context.Background(), store, invariants.Options{})
		return err
	}
	if w.host != nil { // links are there
		inside := check
		check = func() error { return w.host.Do(inside) }
	}
	if err := check(); err != nil {
		return err
	}
	// By name, since a sandbox that came and went unseen is on no record.
	groups, err := w.groups()
	if err != nil {
		return err
	}
	list, err := store.List()
	if err != nil {
		return err
	}
	for _, r := range list.Records {
		groups = slices.DeleteFunc(groups, func(g string) bool { return slices.Contains(r.Cgroups, g) })
	}
	if len(groups) > 0 {
		return fmt.Errorf("cgroups of nobody: %v", groups)
	}
	return invariants.Err(found)
}

// groups are the cgroups of sandboxes of this world.
func (w *world) groups() ([]string, error) {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/sandboxctl/", "/sys/fs/cgroup/*/sandboxctl/"} {
		m, err := filepath.Glob(pattern + w.prefix + "*")
		if err != nil {
			return nil, err
		}
		out = append(out, m...)
	}
	return out, nil
}

// settle waits until all is converged and nothing is on the host that should
// not be: an operation that has just ended closes its files a moment later.
func (w *world) settle() {
	w.t.Helper()
	w.until("converge", func() error {
		if err := w.converged(); err != nil {
			return err
		}
		return w.left(w.store)
	})
}

// send signals a process that was verified, which may have ended.
func send(t testing.TB, p *process.Handle, sig unix.Signal) {
	t.Helper()
	if err := p.Signal(sig); err != nil && !errors.Is(err, unix.ESRCH) {
		t.Fatal(err)
	}
}

// lines that contain a word, of a text.
func lines(text, word string) []string {
	var out []string
	for l := range strings.Lines(text) {
		if strings.Contains(l, word) {
			out = append(out, strings.TrimSpace(l))
		}
	}
	return out
}
