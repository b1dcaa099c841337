// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/invariants"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/volume"
)

// crashDir is where crashable has built, for TestMain to remove.
var crashDir string

// crashable builds the program and its gofer with their crash points, once.
var crashable = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sandboxctl-crash-")
	if err != nil {
		return "", err
	}
	crashDir = dir
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "crashpoints", "-o", dir, ".", "../sandboxctl-gofer", "../sandboxctl-image")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with crash points: %w\n%s", err, out)
	}
	return filepath.Join(dir, "sandboxctl"), nil
})

// moment is a hit of a crash point: the n-th of one process.
type moment struct {
	when, point string
	n           int
	// hold says that the process is held there while its daemon is killed.
	hold bool
}

func (m moment) String() string {
	if m.point == "" {
		return ""
	}
	s := fmt.Sprintf("%s %s %d", m.when, m.point, m.n)
	if m.hold {
		return "hold " + s
	}
	return s
}

// key is a moment without its number.
func (m moment) key() string { return m.when + " " + m.point }

func parseMoment(line string) (moment, bool) {
	f := strings.Fields(line)
	if len(f) != 3 {
		return moment{}, false
	}
	n, err := strconv.Atoi(f[2])
	return moment{when: f[0], point: f[1], n: n}, err == nil
}

// crashWorld is one state directory with one sandbox, "web", and what is around
// it. Its application adds a line to a file of a volume whenever it is started.
type crashWorld struct {
	*testing.T
	dir   string
	store *actual.Store
	past  []string // cgroup names of every sandbox there ever was
	inner *netns.Namespace
	netns string
	image string // a reference to the image of serve
	root  string // of web, "" is a directory
	// converged says whether the last armed daemon had nothing left to do.
	converged bool
	// host is the network namespace that daemons are started in, nil for that of the test.
	host *netns.Namespace
	// cnis are the namespaces that it has had on networks of CNI.
	cnis []string

	cleared sync.Once
	stop    chan struct{}
	watched chan struct{}
}

func newCrashWorld(t *testing.T) *crashWorld {
	t.Helper()
	w := &crashWorld{T: t, dir: t.TempDir(), stop: make(chan struct{}), watched: make(chan struct{})}
	for _, d := range []string{"m", "data", "root/bin", "points"} {
		must(t, os.MkdirAll(filepath.Join(w.dir, d), 0o755))
	}
	b, err := os.ReadFile("/bin/busybox")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(w.dir, "root/bin/busybox"), b, 0o755))
	must(t, os.Symlink("busybox", filepath.Join(w.dir, "root/bin/sh")))
	must(t, unix.Mkfifo(filepath.Join(w.dir, "points/release"), 0o600))
	must(t, os.WriteFile(w.path("secret.env"), []byte("SECRET=of-the-file\n"), 0o600))
	must(t, os.WriteFile(w.path("policy.yaml"), []byte(policyFor(w.dir)), 0o644))
	// One that is not wanted to run: a directory without any manifest would be
	// another story.
	w.manifest("idle", "  suspend: true\n  command: [/bin/sh]\n")
	t.Cleanup(func() { w.cleared.Do(w.clear) })
	go w.watch()
	return w
}

func (w *crashWorld) path(p string) string { return filepath.Join(w.dir, p) }

// manifest writes a manifest as one should: whole, renamed into place.
func (w *crashWorld) manifest(name, spec string) {
	w.Helper()
	text := fmt.Sprintf("apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: %s}\nspec:\n  root: %s\n%s", name, cmp.Or(w.root, "{dir: "+w.path("root")+"}"), spec)
	tmp := w.path("m/." + name)
	must(w.T, os.WriteFile(tmp, []byte(text), 0o644))
	must(w.T, os.Rename(tmp, w.path("m/"+name+".yaml")))
}

// web is the manifest of the sandbox: what it writes, and how long it may take
// to leave. Its volume belongs to another group for each word. It writes nothing without the secrets that it was started with: every
// start, and every start that was resumed, gives them to its sentry and its gofer.
func (w *crashWorld) web(word, grace string, more ...string) {
	w.Helper()
	w.manifest("web", "  command: [/bin/sh, -c, 'trap \"exit 0\" TERM; test \"$SECRET $0\" = \"of-the-file of-the-file\" && /bin/busybox grep -q of-the-file /keys/secret && echo "+word+
		" >> /kept/runs && echo "+word+" >> /data/runs; /bin/busybox sleep 100000 & wait', $(SECRET)]\n"+
		"  envFrom: [{file: "+w.path("secret.env")+", onChange: ignore}]\n"+
		"  volumes: [{name: data, mountPath: /data, hostPath: "+w.path("data")+"}, {mountPath: /kept, volume: {name: kept}, subPath: of/web, ownership: {gid: "+strconv.Itoa(int(word[0]))+", when: onRootMismatch}}, {name: keys, mountPath: /keys, secret: {onChange: ignore, files: {secret: "+w.path("secret.env")+"}}}]\n"+
		"  resources: {cpu: 500m, memory: 256Mi, pids: 100}\n  backoff: {initial: 50ms}\n  terminationGracePeriod: "+grace+"\n"+strings.Join(more, ""))
}

// reloading has a sandbox whose application writes the content of a file again when it is told
// that the file is another one.
func reloading(w *crashWorld) {
	w.value("a")
	w.manifest("web", `  command:
    - /bin/sh
    - -c
    - |
      trap 'exit 0' TERM
      tell() { echo $1 >> /kept/runs; echo $1 >> /data/runs; last=$1; }
      trap 'now=$(/bin/busybox cat /told/value); test "$now" = "$last" || tell $now' HUP
      tell a
      while :; do /bin/busybox sleep 100000 & wait $!; done
  terminationGracePeriod: 0s
  volumes:
    - {name: data, mountPath: /data, hostPath: `+w.path("data")+`}
    - {mountPath: /kept, volume: {name: kept}, subPath: of/web, ownership: {gid: 97, when: onRootMismatch}}
    - {name: told, mountPath: /told, secret: {onChange: signal, files: {value: `+w.path("value")+`}}}
`)
	w.converge()
	w.written("a")
	// It may be told from then on: a daemon that runs once does not wait for that.
	time.Sleep(time.Until(w.rec().App().StartedAt.Add(1100 * time.Millisecond)))
}

// value writes the file that it reads.
func (w *crashWorld) value(text string) {
	w.Helper()
	must(w.T, os.WriteFile(w.path("value.new"), []byte(text), 0o600))
	must(w.T, os.Rename(w.path("value.new"), w.path("value")))
}

// runs are the lines that the application has written.
func (w *crashWorld) runs() string {
	w.Helper()
	b, err := os.ReadFile(w.path("data/runs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.Fatal(err)
	}
	return strings.Join(strings.Fields(string(b)), " ")
}

// kept looks that the named volume is whole, and has what the application has written. It
// is there if the application ever ran, and stays when the sandbox goes.
func (w *crashWorld) kept() {
	w.Helper()
	if w.runs() == "" {
		return
	}
	b, err := os.ReadFile(w.path("s/volumes/kept/data/of/web/runs"))
	must(w.T, err)
	if got := strings.Join(strings.Fields(string(b)), " "); got != w.runs() {
		w.Errorf("the volume has %q, expected %q", got, w.runs())
	}
	// Also the directory on the way to it was given away, whenever its maker was killed.
	var st unix.Stat_t
	must(w.T, unix.Stat(w.path("s/volumes/kept/data/of"), &st))
	if st.Gid == 0 || st.Mode&0o7777 != 0o755 {
		w.Errorf("the directory of subPath belongs to group %d and has the mode %o", st.Gid, st.Mode)
	}
	store, err := volume.Look(w.store.RootDir())
	must(w.T, err)
	defer store.Close()
	if e, err := store.Look("kept"); err != nil || e.Problem != "" {
		w.Errorf("the volume: %+v, %v", e, err)
	}
}

// rec is the record of the sandbox, nil if there is none (yet).
func (w *crashWorld) rec() *actual.Record {
	w.Helper()
	if w.store == nil {
		s, err := actual.OpenStoreReadOnly(w.path("s"))
		if errors.Is(err, actual.ErrNoState) {
			return nil
		}
		must(w.T, err)
		w.store = s
	}
	rec, quarantined, err := w.store.Get("web")
	must(w.T, err)
	if quarantined != nil {
		w.Fatalf("the record of web: %s: %s", quarantined.Reason, quarantined.Message)
	}
	groups, err := invariants.Groups(w.store)
	must(w.T, err)
	w.past = append(w.past, groups...)
	return rec
}

// once runs a daemon until it has nothing to do.
func (w *crashWorld) once(program string, env ...string) (*exec.Cmd, *strings.Builder) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 2*time.Minute)
	w.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, "--manifests", w.path("m"), "--state", w.path("s"), "--policy", w.path("policy.yaml"), "daemon", "--once", "--sentry", filepath.Join(binDir, companion.SentryName))
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	out := &strings.Builder{}
	cmd.Stderr = out
	if w.host != nil {
		must(w.T, w.host.Do(cmd.Start))
	} else {
		must(w.T, cmd.Start())
	}
	return cmd, out
}

// converge runs clean daemons until one says that all is as the manifests say. A
// delay before a restart is not waited for by a daemon that runs once.
func (w *crashWorld) converge() {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		cmd, out := w.once(filepath.Join(binDir, "sandboxctl"))
		err := cmd.Wait()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("not converged: %v\n%s", err, out)
		}
	}
}

// armed runs a daemon with its crash points, to be killed at a moment; the zero
// one is none. At a moment in the gofer it is the daemon that dies, or with
// goferDies the gofer; at one in a pull it is the pull, or if it is held the daemon. It
// returns every moment that was passed, in order.
func (w *crashWorld) armed(at moment, goferDies bool) (trace []moment, killed bool) {
	w.Helper()
	program, err := crashable()
	must(w.T, err)
	must(w.T, os.WriteFile(w.path("points/plan"), []byte(at.String()), 0o600))
	must(w.T, os.WriteFile(w.path("points/trace"), nil, 0o600))
	cmd, out := w.once(program, "SANDBOXCTL_CRASHPOINTS="+w.path("points"))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if at.hold || strings.HasPrefix(at.point, "gofer.") {
		killed, err = w.killHeld(cmd, ended, goferDies)
	} else {
		err = <-ended
	}
	status, _ := cmd.ProcessState.Sys().(interface{ Signaled() bool })
	w.converged = err == nil
	switch {
	case status != nil && status.Signaled():
		killed = true
	case err != nil && !strings.Contains(out.String(), "not converged"):
		w.Fatalf("the armed daemon: %v\n%s", err, out)
	}
	b, err := os.ReadFile(w.path("points/trace"))
	must(w.T, err)
	for line := range strings.Lines(string(b)) {
		if m, ok := parseMoment(line); ok {
			trace = append(trace, m)
			killed = killed || m == at // also a pull, which its daemon outlives
		} else if strings.HasPrefix(line, "alive") {
			w.Fatalf("a process could not kill itself: %s", line)
		}
	}
	return trace, killed
}

// killHeld waits until a gofer or a pull is held at its point, and kills the daemon or
// the gofer.
func (w *crashWorld) killHeld(daemon *exec.Cmd, ended chan error, goferDies bool) (killed bool, err error) {
	w.Helper()
	for {
		select {
		case err := <-ended:
			return false, err // it never came there
		case <-time.After(2 * time.Millisecond):
		}
		if b, err := os.ReadFile(w.path("points/trace")); err == nil && strings.Contains(string(b), "held\n") {
			break
		}
	}
	victim := daemon.Process
	if goferDies {
		if victim, err = goferOf(daemon.Process.Pid); err != nil {
			w.Fatal(err)
		}
	}
	must(w.T, victim.Kill())
	if !goferDies {
		err = <-ended
	}
	f, ferr := os.OpenFile(w.path("points/release"), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if ferr == nil {
		_, ferr = f.Write([]byte{1})
		ferr = errors.Join(ferr, f.Close())
	}
	// A process that is dead has nobody at the other end.
	if ferr != nil && !errors.Is(ferr, unix.ENXIO) && !errors.Is(ferr, unix.EPIPE) {
		w.Fatal(ferr)
	}
	if goferDies {
		err = <-ended
	}
	return true, err
}

// goferOf finds the gofer that a daemon has started, by a handle that can't come
// to mean another process.
func goferOf(daemon int) (*os.Process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		cmdline, _ := os.ReadFile(d + "/cmdline")
		stat, _ := os.ReadFile(d + "/stat")
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if strings.HasPrefix(string(cmdline), gofer.Argv0+"\x00") && len(f) > 1 && f[1] == strconv.Itoa(daemon) {
			return p, nil
		}
		_ = p.Release()
	}
	return nil, errors.New("the daemon has no gofer")
}

// watch looks, while anything goes on, that no sandbox has two sentries or
// gofers.
func (w *crashWorld) watch() {
	defer close(w.watched)
	var store *actual.Store
	for {
		select {
		case <-w.stop:
			if store != nil {
				store.Close()
			}
			return
		case <-time.After(50 * time.Millisecond): // a look reads all of /proc
		}
		if store == nil {
			var err error
			if store, err = actual.OpenStoreReadOnly(w.path("s")); err != nil {
				continue
			}
		}
		found, err := invariants.Duplicates(store)
		if err != nil || len(found) > 0 {
			w.Errorf("while it went on: %v %v", found, err)
			store.Close()
			<-w.stop
			return
		}
	}
}

// settled waits until the checker finds nothing. What was held at its gate takes
// a moment to leave.
func (w *crashWorld) settled() {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		found, err := invariants.Check(w.Context(), w.store, invariants.Options{Settled: true, Past: slices.Compact(slices.Sorted(slices.Values(w.past)))})
		must(w.T, err)
		if len(found) == 0 {
			return
		}
		if time.Now().After(deadline) || w.Failed() {
			w.Fatalf("left: %v", invariants.Err(found))
		}
	}
}

// copied looks that the second copy of the record is of what runs, and that there
// is none of what does not.
func (w *crashWorld) copied() {
	w.Helper()
	rec := w.rec()
	if rec == nil {
		return
	}
	second, err := w.store.Copy("web")
	switch {
	case rec.Phase != actual.PhaseRunning && !errors.Is(err, os.ErrNotExist):
		w.Errorf("it is %s, and there is a second copy of its record: %v", rec.Phase, err)
	case rec.Phase != actual.PhaseRunning:
	case err != nil:
		w.Error(err)
	case second.Phase != rec.Phase || second.Attempt != rec.Attempt || *second.Sentry != *rec.Sentry || *second.Gofer != *rec.Gofer:
		w.Errorf("the second copy of its record is of attempt %d, %s; it is in attempt %d, %s", second.Attempt, second.Phase, rec.Attempt, rec.Phase)
	}
}

// clear removes the sandbox, whatever became of it, and looks that nothing is
// left then.
func (w *crashWorld) clear() {
	close(w.stop)
	<-w.watched
	if _, err := os.Stat(w.path("s/sandboxes")); errors.Is(err, os.ErrNotExist) {
		return
	}
	store, err := actual.OpenStore(w.path("s"))
	must(w.T, err)
	defer store.Close()
	l, err := launcher.New(launcher.Options{Store: store, Policy: hostpolicy.NewFile(hostpolicy.Options{Path: w.path("policy.yaml")}).Load})
	must(w.T, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := store.List()
	must(w.T, err)
	end := func() (err error) {
		for _, r := range list.Records {
			err = errors.Join(err, l.Destroy(ctx, r.Name, actual.Ending{Reason: "TestOver"}), l.Forget(ctx, r.Name))
		}
		return err
	}
	if w.host != nil {
		must(w.T, w.host.Do(end)) // plugins of CNI undo what they have made there
	} else {
		must(w.T, end())
	}
	for _, n := range list.Aborted {
		must(w.T, l.Forget(ctx, n))
	}
	_, err = store.SweepTrash()
	must(w.T, err)
	found, err := invariants.Check(ctx, store, invariants.Options{Settled: true, Past: w.past})
	must(w.T, errors.Join(err, invariants.Err(found)))
	if w.inner != nil {
		if got := addresses(w.T, w.inner); !strings.Contains(got, "10.99.7.2/24") {
			w.Errorf("eth0 has %q, expected 10.99.7.2/24 back", got)
		}
	}
	if w.store != nil {
		w.store.Close()
	}
}
