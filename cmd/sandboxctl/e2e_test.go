// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/invariants"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/proc/proctest"
	"sandboxctl.dev/launcher/projquota/projquotatest"
	"sandboxctl.dev/reconcile"
)

// binDir holds the three real binaries. `make` names the ones it has built;
// without it they are built here.
var binDir string

// overlap has twice as many tests run at the same time as there are processors, if
// nobody has said how many: they wait for daemons and sandboxes more than they compute.
func overlap() {
	parallel := flag.Lookup("test.parallel").Value
	if procs := runtime.GOMAXPROCS(0); parallel.String() == strconv.Itoa(procs) {
		if err := parallel.Set(strconv.Itoa(2 * procs)); err != nil {
			panic(err)
		}
	}
}

// heedSignals gives what tests start the default action of signals that they send to
// clients, also if this program was started with nohup or in the background of a script,
// which ignore them: TestFollow would wait for ever.
func heedSignals() {
	for _, s := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

func TestMain(m *testing.M) {
	if code, is := stub(); is {
		unix.Exit(code) // os.Exit waits a second for the race detector
	}
	switch {
	case os.Getenv(intruderEnv) != "":
		intrude()
		os.Exit(0)
	case os.Getenv(memberEnv) != "":
		os.Exit(beMember())
	}
	flag.Parse()
	overlap()
	heedSignals()
	code, err := func() (int, error) {
		binDir = os.Getenv("SANDBOXCTL_BIN")
		if binDir == "" {
			dir, err := os.MkdirTemp("", "sandboxctl-bin-")
			if err != nil {
				return 1, err
			}
			defer os.RemoveAll(dir)
			cmd := exec.Command("go", "build", "-trimpath", "-o", dir, ".", "../sandboxctl-gofer", "../sandboxctl-image", "../sandboxctl-sentry")
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				return 1, fmt.Errorf("build: %w\n%s", err, out)
			}
			binDir = dir
		}
		code := m.Run()
		if crashDir != "" {
			return code, os.RemoveAll(crashDir)
		}
		return code, nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// requireHost skips a test that needs a host on which sandboxes can run, or
// fails it where that is required. The reason is what doctor says.
func requireHost(t *testing.T) {
	t.Helper()
	out, err := exec.Command(filepath.Join(binDir, "sandboxctl"), "--state", t.TempDir()+"/none", "doctor").CombinedOutput()
	if err == nil && os.Geteuid() == 0 {
		return
	}
	hosttest.Lacks(t, "this host can't run sandboxes:\n%s", out)
}

// TestScript runs the real program on real sandboxes.
func TestScript(t *testing.T) {
	requireHost(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Condition: func(cond string) (bool, error) {
			if cond == "prjquota" {
				return projquotatest.KernelHas(), nil
			}
			return false, fmt.Errorf("there is no condition %s", cond)
		},
		Setup:               setupScript,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon":       cmdDaemon,
			"example":      cmdExample,
			"hostnet":      cmdHostnet,
			"nameserver":   cmdNameserver,
			"stopdaemon":   cmdStopDaemon,
			"until":        cmdUntil,
			"status":       cmdStatus,
			"signal":       cmdSignal,
			"gone":         cmdGone,
			"dead":         cmdDead,
			"mountat":      cmdMountAt,
			"mountquota":   cmdMountQuota,
			"umountat":     cmdUmountAt,
			"same":         cmdSame,
			"mkimage":      cmdMkImage,
			"registry":     cmdRegistry,
			"realregistry": cmdRealRegistry,
		},
	})
}

// Whatever a script waits for may take SANDBOXCTL_PATIENCE times as long: a deadline is
// the default of the verb, or counted in $MINUTE. Short ones are meant to run out.
func TestScriptsArePatient(t *testing.T) {
	t.Parallel()
	fixed := regexp.MustCompile(`--timeout[ =]([0-9]{2,}s|[0-9]+[mh])\b|\btimeout [0-9]{2,} |seq [0-9]{2,}\)`)
	files, err := filepath.Glob("testdata/script/*.txtar")
	must(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		for i, line := range strings.Split(string(b), "\n") {
			// Two hundred of something is no wait.
			if fixed.MatchString(line) && !strings.Contains(line, "& done; wait") {
				t.Errorf("%s:%d: a wait that is not counted in $MINUTE: %s", f, i+1, strings.TrimSpace(line))
			}
		}
	}
}

const (
	keyDaemon = "daemon"
	keyState  = "state"
)

// world of one script: its daemon, and what must be undone.
type scriptState struct {
	daemon *exec.Cmd
	log    *os.File
	mounts []string
	// netns is the namespace that the daemon is started in, "" for that of the test.
	netns string
	// nameserver is the one that was started last.
	nameserver net.PacketConn
	// registry is that of the command realregistry.
	registry *realRegistry
}

func setupScript(env *testscript.Env) error {
	work := env.WorkDir
	env.Setenv("PATH", binDir+":"+os.Getenv("PATH"))
	env.Setenv("SANDBOXCTL_MANIFESTS", filepath.Join(work, "manifests"))
	env.Setenv("SANDBOXCTL_STATE", filepath.Join(work, "state"))
	env.Setenv("M", filepath.Join(work, "manifests"))
	env.Setenv("S", filepath.Join(work, "state"))
	// The OCI runtime, with its state where cleanUp finds it.
	r := filepath.Join(work, "r")
	wrapper := "#!/bin/sh\nexec sandboxctl oci --root " + r + " --log " + work + "/log.json --log-format json \"$@\"\n"
	if err := os.MkdirAll(filepath.Join(work, "bin"), 0o755); err != nil {
		return err
	}
	if err := proctest.WriteProgram(filepath.Join(work, "bin", "oci"), []byte(wrapper), 0o755); err != nil {
		return err
	}
	env.Setenv("PATH", filepath.Join(work, "bin")+":"+env.Getenv("PATH"))
	env.Setenv("R", r)
	env.Setenv("LOG", work+"/log.json")
	env.Setenv("API", "sandboxctl.dev/v1alpha1")
	examples, err := filepath.Abs("../../examples/manifests")
	if err != nil {
		return err
	}
	env.Setenv("EXAMPLES", examples)
	// How long verbs wait if they are not told, and what scripts wait themselves, in
	// seconds.
	env.Setenv("SANDBOXCTL_TIMEOUT", patience(time.Minute).String())
	env.Setenv("MINUTE", strconv.Itoa(int(patience(time.Minute).Seconds())))
	if err := os.MkdirAll(filepath.Join(work, "manifests"), 0o755); err != nil {
		return err
	}
	// Everything may be asked for, and shared is what the script makes.
	policy := filepath.Join(work, "policy.yaml")
	if err := os.WriteFile(policy, []byte(policyFor(work, "/nonexistent")), 0o644); err != nil {
		return err
	}
	env.Setenv("SANDBOXCTL_POLICY", policy)
	st := &scriptState{}
	env.Values[keyDaemon] = st
	env.Values[keyState] = filepath.Join(work, "state")
	env.Defer(func() { cleanUp(env, st) })
	return nil
}

// policyFor is a host policy that allows whatever there is to allow, with
// directories below the ones given.
func policyFor(dirs ...string) string {
	var list strings.Builder
	for _, d := range dirs {
		fmt.Fprintf(&list, "{path: %q, access: readWrite}, ", d)
	}
	return fmt.Sprintf(`apiVersion: sandboxctl.dev/v1alpha1
kind: HostPolicy
hostPaths: [%[1]s]
root: {dirs: [%[1]s], bundles: [%[1]s], imagePaths: [%[1]s], hooks: true}
network: {host: true, netns: ["*"]}
capabilities: [ALL]
fileAccess: [proxy, direct]
minRestartDelay: 0s
snapshots: {names: ["*"]}
`, list.String())
}

// allowing is such a policy for a launcher.
func allowing(t *testing.T, dirs ...string) func() (*hostpolicy.Policy, error) {
	t.Helper()
	p, problems := hostpolicy.Decode("policy.yaml", []byte(policyFor(dirs...)))
	if p == nil {
		t.Fatal(problems)
	}
	return func() (*hostpolicy.Policy, error) { return p, nil }
}

// cleanUp ends everything a script has started, also when it failed, and then
// looks whether anything is left on the host.
func cleanUp(env *testscript.Env, st *scriptState) {
	st.stop(unix.SIGKILL)
	defer func() {
		for _, m := range st.mounts {
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
	}()
	// What plugins of CNI and others undo is in the namespace of the daemon.
	leave := func() {}
	if st.netns != "" {
		leave = enter(env, st.netns)
	}
	cleanState(env, env.Values[keyState].(string), actual.OpenStore)
	leave()
	cleanState(env, env.Getenv("R"), actual.OpenRuntimeStore)
}

// enter puts this goroutine into a network namespace until leave is called. If it is not, the
// thread ends with the goroutine, and nobody else runs there.
func enter(env *testscript.Env, path string) (leave func()) {
	runtime.LockOSThread()
	open := func(p string) *os.File {
		f, err := os.Open(p)
		if err != nil {
			env.T().Fatal(err)
		}
		return f
	}
	own, there := open("/proc/thread-self/ns/net"), open(path)
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		env.T().Fatal(err)
	}
	return func() {
		defer own.Close()
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
			env.T().Fatal(err)
		}
		runtime.UnlockOSThread()
	}
}

func cleanState(env *testscript.Env, state string, open func(string) (*actual.Store, error)) {
	if _, err := os.Stat(state); errors.Is(err, fs.ErrNotExist) {
		return
	}
	store, err := open(state)
	must := func(what string, err error) {
		if err != nil {
			env.T().Fatal(fmt.Sprintf("clean up: %s: %v", what, err))
		}
	}
	must("open state", err)
	defer store.Close()
	policy := hostpolicy.NewFile(hostpolicy.Options{Path: env.Getenv("SANDBOXCTL_POLICY")})
	l, err := launcher.New(launcher.Options{Store: store, Policy: policy.Load})
	must("make launcher", err)
	list, err := store.List()
	must("list", err)
	ctx, cancel := context.WithTimeout(context.Background(), patience(time.Minute))
	defer cancel()
	for _, rec := range list.Records {
		must("destroy", l.Destroy(ctx, rec.Name, actual.Ending{Reason: "TestOver"}))
	}
	for _, h := range list.Quarantined {
		must("end", l.EndUnrecorded(ctx, h.Name))
	}
	// The daemon was killed a moment ago, in the middle of whatever it did: the
	// next one would remove these.
	for _, n := range list.Aborted {
		must("forget", l.Forget(ctx, n))
	}
	_, err = store.SweepTemps()
	_, terr := store.SweepTrash()
	must("sweep", errors.Join(terr, err, l.Warm.Sweep(ctx)))
	for {
		found, err := invariants.Check(ctx, store, invariants.Options{Settled: true})
		must("invariants", err)
		if len(found) == 0 {
			return
		}
		// What it was just starting takes a moment to leave.
		select {
		case <-ctx.Done():
			must("invariants", invariants.Err(found))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// cmdDaemon starts the daemon with the flags given.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	st := ts.Value(keyDaemon).(*scriptState)
	if neg || st.daemon != nil {
		ts.Fatalf("daemon is running")
	}
	log, err := os.OpenFile(ts.MkAbs("daemon.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	ts.Check(err)
	cmd := exec.Command(filepath.Join(binDir, "sandboxctl"), append([]string{"daemon"}, args...)...)
	cmd.Env = scriptEnv(ts)
	cmd.Stdout, cmd.Stderr = log, log
	start := cmd.Start
	if st.netns != "" {
		n, err := netns.Open(st.netns)
		ts.Check(err)
		defer n.Close()
		start = func() error { return n.Do(cmd.Start) }
	}
	ts.Check(start())
	st.daemon, st.log = cmd, log
}

// cmdStopDaemon ends the daemon: stopdaemon [TERM|KILL].
func cmdStopDaemon(ts *testscript.TestScript, _ bool, args []string) {
	st := ts.Value(keyDaemon).(*scriptState)
	if st.daemon == nil {
		ts.Fatalf("no daemon is running")
	}
	sig := unix.SIGTERM
	if len(args) == 1 {
		sig = unix.SignalNum("SIG" + args[0])
	}
	err := st.stop(sig)
	if sig == unix.SIGTERM && err != nil {
		ts.Fatalf("daemon ended with %v", err)
	}
}

func (st *scriptState) stop(sig syscall.Signal) error {
	if st.daemon == nil {
		return nil
	}
	_ = st.daemon.Process.Signal(sig)
	err := st.daemon.Wait()
	_ = st.log.Close()
	st.daemon = nil
	return err
}

// patience is a deadline of these tests, SANDBOXCTL_PATIENCE times as long: an
// emulated machine is that much slower.
func patience(d time.Duration) time.Duration {
	factor, err := strconv.Atoi(os.Getenv("SANDBOXCTL_PATIENCE"))
	if err != nil || factor < 1 {
		return d
	}
	return d * time.Duration(factor)
}

// untilTimeout bounds every wait of a script. A loaded machine is slow; a
// script that waits this long has failed.
var untilTimeout = patience(60 * time.Second)

// cmdUntil runs a command until it succeeds: until COMMAND [ARG]...; with a
// first argument ~REGEXP its output must match as well.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	began := time.Now()
	for {
		out, err := run(ts, args)
		if (err == nil) != neg {
			return
		}
		waited := time.Since(began)
		if waited > untilTimeout {
			ts.Fatalf("not within %s: %v\nlast: %v\n%s\n%s", untilTimeout, args, err, out, tail(ts.MkAbs("daemon.log")))
		}
		// Each look starts a program, which takes as long as the shortest pause. What is
		// not there soon is looked for less often, or the scripts that wait would take
		// the processors from what they wait for.
		time.Sleep(min(max(20*time.Millisecond, waited/10), 100*time.Millisecond))
	}
}

// run runs a command of a script; "status" is ours.
func run(ts *testscript.TestScript, args []string) (string, error) {
	if args[0] == "status" {
		return "", checkStatus(ts, args[1:])
	}
	if args[0] == "gone" {
		return "", checkGone(ts, args[1:])
	}
	cmd := exec.Command(args[0], args[1:]...)
	if args[0] == "sandboxctl" {
		cmd.Path, cmd.Err = filepath.Join(binDir, args[0]), nil
	}
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = scriptEnv(ts)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// scriptEnv is the environment of a script's programs.
func scriptEnv(ts *testscript.TestScript) []string {
	env := os.Environ()
	for _, k := range []string{"PATH", "SANDBOXCTL_MANIFESTS", "SANDBOXCTL_STATE", "SANDBOXCTL_POLICY", "SANDBOXCTL_TIMEOUT", "MINUTE", "M", "S"} {
		env = append(env, k+"="+ts.Getenv(k))
	}
	if ts.Getenv("HOSTNET") != "" {
		env = append(env, "HOSTNET="+ts.Getenv("HOSTNET"), "FAR="+ts.Getenv("FAR"))
	}
	if ts.Getenv("REGISTRY") != "" {
		for _, k := range []string{"REGISTRY", "SANDBOXCTL_REGISTRIES", "DOCKER_CONFIG"} {
			env = append(env, k+"="+ts.Getenv(k))
		}
	}
	return env
}

func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}

// cmdStatus checks or reads the status of a sandbox:
//
//	status NAME KEY=VALUE...   fails unless all are so
//	status NAME KEY>VAR        puts a value into an environment variable
//
// Keys are fields of `get -o json`, or condition.TYPE.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if err := checkStatus(ts, args); (err != nil) != neg {
		ts.Fatalf("status %v: %v\n%s", args, err, tail(ts.MkAbs("daemon.log")))
	}
}

func checkStatus(ts *testscript.TestScript, args []string) error {
	out, err := run(ts, []string{"sandboxctl", "get", args[0], "-o", "json"})
	if err != nil {
		return fmt.Errorf("get: %w: %s", err, out)
	}
	// Diagnostics come before the data in the combined output.
	if i := strings.IndexByte(out, '{'); i >= 0 {
		out = out[i:]
	}
	var o object
	var fields struct {
		Status map[string]any `json:"status"`
	}
	if err := errors.Join(json.Unmarshal([]byte(out), &o), json.Unmarshal([]byte(out), &fields)); err != nil {
		return fmt.Errorf("decode %s: %w", out, err)
	}
	value := func(key string) string {
		if typ, ok := strings.CutPrefix(key, "condition."); ok {
			return conditionText(&o.Status, typ)
		}
		if key == "exit" {
			return world.ExitText(o.Status.LastTermination)
		}
		switch v := fields.Status[key].(type) {
		case nil:
			return ""
		case float64:
			return strconv.FormatFloat(v, 'f', -1, 64)
		default:
			return fmt.Sprint(v)
		}
	}
	for _, a := range args[1:] {
		if key, name, ok := strings.Cut(a, ">"); ok {
			v := value(key)
			if v == "" {
				return fmt.Errorf("%s is empty", key)
			}
			ts.Setenv(name, v)
			continue
		}
		key, want, differ := strings.Cut(a, "!=")
		if !differ {
			key, want, _ = strings.Cut(a, "=")
		}
		if got := value(key); (got == want) == differ {
			return fmt.Errorf("%s is %q, expected %s", key, got, a)
		}
	}
	return nil
}

func conditionText(s *reconcile.Status, typ string) string {
	c := s.Condition(typ)
	if c == nil {
		return "missing"
	}
	return c.Status + "/" + c.Reason
}

// cmdSignal sends a signal to a process of a sandbox of this script, found by
// its record: signal KILL sentry|gofer NAME.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 || args[1] != "sentry" && args[1] != "gofer" {
		ts.Fatalf("usage: signal NAME-OF-SIGNAL sentry|gofer NAME")
	}
	store, err := actual.OpenStoreReadOnly(ts.Value(keyState).(string))
	ts.Check(err)
	defer store.Close()
	rec, _, err := store.Get(args[2])
	ts.Check(err)
	if rec == nil {
		ts.Fatalf("signal: there is no record of %s", args[2])
	}
	id := rec.Sentry
	if args[1] == "gofer" {
		id = rec.Gofer
	}
	if id == nil {
		ts.Fatalf("signal: %s has no %s", args[2], args[1])
	}
	p, err := process.Open(*id)
	ts.Check(err)
	defer p.Close()
	ts.Check(p.Signal(unix.SignalNum("SIG" + args[0])))
}

// cmdGone checks that nothing is left of a sandbox: gone NAME UID PID...
func cmdGone(ts *testscript.TestScript, neg bool, args []string) {
	if err := checkGone(ts, args); (err != nil) != neg {
		ts.Fatalf("gone %v: %v", args, err)
	}
}

// cmdDead waits until processes are dead: dead PID...
func cmdDead(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		if err := checkDead(args); err == nil {
			ts.Fatalf("! dead %v: they are", args)
		}
		return
	}
	deadline := time.Now().Add(patience(20 * time.Second))
	for {
		err := checkDead(args)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("dead %v: %v", args, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func checkDead(pids []string) error {
	for _, pid := range pids {
		if _, err := strconv.Atoi(pid); err != nil {
			return fmt.Errorf("%q is not a pid", pid)
		}
		// A reused number is another process: ours have our names. A zombie has
		// no command line.
		b, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err == nil && strings.HasPrefix(string(b), "sandboxctl-") {
			return fmt.Errorf("pid %s is there: %q", pid, b)
		}
	}
	return nil
}

func checkGone(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		ts.Fatalf("usage: gone NAME UID [PID...]")
	}
	state := ts.Value(keyState).(string)
	if _, err := os.Lstat(filepath.Join(state, "sandboxes", args[0])); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("its directory is there: %v", err)
	}
	if err := checkDead(args[2:]); err != nil {
		return err
	}
	store, err := actual.OpenStoreReadOnly(state)
	if err != nil {
		return err
	}
	defer store.Close()
	found, err := invariants.Check(context.Background(), store, invariants.Options{Past: []string{string(cgroup.Own(args[0], args[1]))}})
	return errors.Join(err, invariants.Err(found))
}

// cmdMountAt mounts a filesystem that cleanUp takes away: mountat [TYPE] DIR
// [OPTIONS].
func cmdMountAt(ts *testscript.TestScript, _ bool, args []string) {
	st := ts.Value(keyDaemon).(*scriptState)
	fstype, data := "tmpfs", "size=4m,mode=0755" // others must not write a manifests directory
	switch len(args) {
	case 2:
		fstype, data, args = args[0], "", args[1:]
	case 3:
		fstype, data, args = args[0], args[2], args[1:]
	}
	dir := ts.MkAbs(args[0])
	ts.Check(unix.Mount(fstype, dir, fstype, 0, data))
	st.mounts = append(st.mounts, dir)
}

// cmdMountQuota mounts a file system with project quotas at a directory.
func cmdMountQuota(ts *testscript.TestScript, _ bool, args []string) {
	st := ts.Value(keyDaemon).(*scriptState)
	dir := ts.MkAbs(args[0])
	ts.Check(projquotatest.Mount(ts.MkAbs("quota.img"), dir, 64))
	st.mounts = append(st.mounts, dir)
}

func cmdUmountAt(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(unix.Unmount(ts.MkAbs(args[0]), unix.MNT_DETACH))
}

// cmdSame compares two values: same A B.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	if (args[0] == args[1]) == neg {
		ts.Fatalf("%q and %q", args[0], args[1])
	}
}
