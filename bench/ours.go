// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
)

// poll is how often something is looked for. What happened has a time of its own.
const poll = 10 * time.Millisecond

// within is how long anything may take.
const within = 5 * time.Minute

// until calls ok until it is true, or the run is ended.
func (o *ours) until(what string, ok func() (bool, error)) error {
	for deadline := time.Now().Add(within); ; {
		if done, err := ok(); done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s", what, within)
		}
		if err := sleep(o.ctx, poll); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// sleep waits, but not longer than the run lasts.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// apart puts a command into a process group of its own. Ctrl-C goes to the group of
// the bench: it would end the daemon too, and nobody would remove its sandboxes.
func apart(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	return cmd
}

// guest is what the sandboxes of a measurement run.
type guest struct {
	root  string   // spec.root of a manifest
	dir   string   // the same as a directory, for others
	print []string // a command that prints a line
	sleep []string // one that sleeps
}

// busyboxGuest has a root of one static program, which makeRoot has made.
func busyboxGuest(dir string) guest {
	return guest{root: fmt.Sprintf("{dir: %q}", dir), dir: dir, print: []string{"/bin/busybox", "echo", "up"}, sleep: []string{"/bin/busybox", "sleep", "1000000"}}
}

// ours is a daemon of sandboxctl on directories of its own.
type ours struct {
	ctx       context.Context // ends what is waited for, but not in close
	bin, work string
	guest     guest
	daemon    *exec.Cmd
	log       *os.File
	store     *actual.Store
	serial    int
	joins     string // added to the spec of those that sleep
}

func newOurs(ctx context.Context, bin, work string, g guest) (*ours, error) {
	o := &ours{ctx: ctx, bin: filepath.Join(bin, "sandboxctl"), work: work, guest: g}
	// A log in a directory that is watched would wake the daemon with each line.
	for _, d := range []string{"manifests", "policy", "log"} {
		if err := os.MkdirAll(filepath.Join(work, d), 0o755); err != nil {
			return nil, err
		}
	}
	// Starts are cold: one of two would take processes that wait, and not the other.
	policy := fmt.Sprintf("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\nroot: {dirs: [{path: %q, access: readWrite}], imagePaths: [{path: %q, access: readOnly}]}\nminRestartDelay: 0s\nfileAccess: [proxy, direct]\nwarm: 0\n", g.dir, filepath.Dir(work))
	if err := os.WriteFile(filepath.Join(work, "policy", "policy.yaml"), []byte(policy), 0o644); err != nil {
		return nil, err
	}
	return o, nil
}

func (o *ours) command(args ...string) *exec.Cmd {
	cmd := apart(exec.Command(o.bin, args...))
	cmd.Env = append(os.Environ(), "SANDBOXCTL_MANIFESTS="+filepath.Join(o.work, "manifests"),
		"SANDBOXCTL_STATE="+filepath.Join(o.work, "state"), "SANDBOXCTL_POLICY="+filepath.Join(o.work, "policy", "policy.yaml"))
	return cmd
}

// startDaemon starts a daemon and returns once there is its state directory.
func (o *ours) startDaemon() error {
	log, err := os.OpenFile(filepath.Join(o.work, "log", "daemon"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	o.log = log
	daemon := o.command("daemon", "--allow-mass-delete")
	daemon.Stderr = log
	if err := daemon.Start(); err != nil {
		return err
	}
	o.daemon = daemon
	return o.until("a state directory", func() (bool, error) {
		if o.store == nil {
			o.store, _ = actual.OpenStoreReadOnly(filepath.Join(o.work, "state"))
		}
		return o.store != nil, nil
	})
}

func (o *ours) stopDaemon() error {
	if o.daemon == nil {
		return nil
	}
	err := errors.Join(o.daemon.Process.Signal(unix.SIGTERM), o.daemon.Wait(), o.log.Close())
	o.daemon = nil
	if err != nil {
		text, _ := os.ReadFile(o.log.Name()) // what it said is all the better
		err = fmt.Errorf("daemon: %w\n%s", err, text[max(0, len(text)-2000):])
	}
	return err
}

// close removes every sandbox and ends the daemon, also of a run that was ended: if
// that was between two daemons, it needs one more.
func (o *ours) close() error {
	o.ctx = context.Background()
	var errs []error
	if o.daemon == nil && o.store != nil {
		errs = append(errs, o.startDaemon())
	}
	if o.daemon != nil {
		errs = append(errs, o.clear(), o.stopDaemon())
	}
	if o.store != nil {
		o.store.Close()
	}
	return errors.Join(errs...)
}

// manifest is one of the guest's root.
func (o *ours) manifest(name, spec string) []byte {
	return fmt.Appendf(nil, "apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: %s}\nspec:\n  root: %s\n%s", name, o.guest.root, spec)
}

// put renames a manifest into the directory and returns when that was.
func (o *ours) put(name, spec string) (time.Time, error) {
	tmp := filepath.Join(o.work, "next.yaml")
	if err := os.WriteFile(tmp, o.manifest(name, spec), 0o644); err != nil {
		return time.Time{}, err
	}
	at := time.Now()
	return at, os.Rename(tmp, filepath.Join(o.work, "manifests", name+".yaml"))
}

// clear removes all manifests and returns once nothing of their sandboxes is there.
func (o *ours) clear() error {
	entries, err := os.ReadDir(filepath.Join(o.work, "manifests"))
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(o.work, "manifests", e.Name())))
	}
	if err != nil {
		return err
	}
	return o.until("the removal of all sandboxes", func() (bool, error) {
		names, err := os.ReadDir(filepath.Join(o.work, "state", "sandboxes"))
		return err == nil && len(names) == 0, nil
	})
}

// running waits for the first attempt of a sandbox.
func (o *ours) running(name string) (rec *actual.Record, err error) {
	err = o.until(name, func() (bool, error) {
		rec, _, _ = o.store.Get(name)
		return rec != nil && rec.Phase == actual.PhaseRunning && rec.Attempt == 1, nil
	})
	return rec, err
}

// firstLine is when the application of an attempt wrote its first line.
func (o *ours) firstLine(name string, attempt int64) (at time.Time, err error) {
	err = o.until("the first line of "+name, func() (bool, error) {
		rec, _, _ := o.store.Get(name)
		if rec == nil || rec.Attempt < attempt || rec.Phase == actual.PhaseCreating || rec.Phase == actual.PhaseStarting {
			return false, nil
		}
		out, err := o.command("logs", "--timestamps", name).Output()
		if err != nil {
			return false, err
		}
		stamp, _, ok := bytes.Cut(out, []byte(" "))
		if !ok {
			return false, nil
		}
		at, err = time.Parse(time.RFC3339Nano, string(stamp))
		return true, err
	})
	return at, err
}

// once is the spec of a sandbox that ends with a command.
func once(command []string) string {
	return "  command: " + flow(command) + "\n  restartPolicy: Never\n"
}

// idle is the spec of one that sleeps.
func (o *ours) idle() string {
	return "  command: " + flow(o.guest.sleep) + "\n  terminationGracePeriod: 0s\n" + o.joins
}

// flow is a list of texts in YAML, and in JSON.
func flow(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// run measures a manifest that is renamed into the directory → the first line of
// its application. more is added to its spec.
func (o *ours) run(more string) (time.Duration, error) {
	o.serial++
	name := fmt.Sprintf("once-%d", o.serial)
	began, err := o.put(name, once(o.guest.print)+more)
	if err != nil {
		return 0, err
	}
	at, err := o.firstLine(name, 1)
	return at.Sub(began), errors.Join(err, o.clear())
}

// restart measures kill -9 of a sentry → the first line of the next one.
func (o *ours) restart() (took time.Duration, err error) {
	const name = "restarted"
	if _, err := o.put(name, "  command: [/bin/busybox, sh, -c, 'echo up; exec /bin/busybox sleep 1000']\n  terminationGracePeriod: 0s\n  backoff: {initial: 0s}\n"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, o.clear()) }()
	rec, err := o.running(name)
	if err != nil {
		return 0, err
	}
	p, err := process.Open(*rec.Sentry)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	began := time.Now()
	if err := p.Signal(unix.SIGKILL); err != nil {
		return 0, err
	}
	at, err := o.firstLine(name, 2)
	return at.Sub(began), err
}

// up starts n sandboxes and returns when the last of them runs.
func (o *ours) up(n int) error {
	dir := filepath.Join(o.work, "next")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, oursID(i)+".yaml"), o.manifest(oursID(i), o.idle()), 0o644); err != nil {
			return err
		}
	}
	if err := os.Rename(dir, filepath.Join(o.work, "manifests", "all")); err != nil {
		return err
	}
	started := 0
	return o.until(fmt.Sprintf("%d sandboxes", n), func() (bool, error) {
		for ; started < n; started++ {
			rec, _, _ := o.store.Get(oursID(started))
			if rec == nil || rec.Phase != actual.PhaseRunning {
				return false, nil
			}
		}
		return true, nil
	})
}

func oursID(i int) string { return fmt.Sprintf("idle-%04d", i) }

func (o *ours) down(int) error { return o.clear() }

func (o *ours) exec(i int) *exec.Cmd {
	return o.command("exec", oursID(i), "--", "/bin/busybox", "true")
}

func (o *ours) list() *exec.Cmd { return o.command("get") }

// holds says which processes are those of sandboxes, without the daemon.
func (o *ours) holds(all []proc) map[int]bool {
	roots := map[int]bool{}
	for _, p := range all {
		if p.parent == o.daemon.Process.Pid || p.args[0] != "" && strings.HasPrefix(p.args[0], "sandboxctl-") && mentions(p, filepath.Join(o.work, "state")) {
			roots[p.pid] = true
		}
	}
	return withChildren(all, roots)
}

func mentions(p proc, text string) bool {
	for _, a := range p.args {
		if strings.Contains(a, text) {
			return true
		}
	}
	return false
}
