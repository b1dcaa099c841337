// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
)

// TestStoppedProcess: a sentry or gofer that is stopped holds up nobody but who
// asks it for something, and that not for long; the sandbox can be removed.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	requireHost(t)
	w := newWorld(t, "--resync", "1s")
	a, b, c := w.prefix+"-a", w.prefix+"-b", w.prefix+"-c"
	w.put(a, strings.Replace(w.manifest(a, 1, ""), "Period: 0s", "Period: 1s", 1))
	w.put(b, w.manifest(b, 1, ""))
	w.put(c, w.manifest(c, 1, ""))
	w.start()
	w.settle()
	before := w.twins()
	var stopped []*process.Handle
	for name, what := range map[string]string{a: "sentry", c: "gofer"} {
		p := w.process(name, what)
		send(t, p, unix.SIGSTOP)
		stopped = append(stopped, p)
		pid := before[name].sentry.PID
		if what == "gofer" {
			pid = before[name].gofer.PID
		}
		w.until("every thread stops", func() error { return standing(pid) })
	}
	t.Cleanup(func() {
		for _, p := range stopped {
			send(t, p, unix.SIGCONT)
			p.Close()
		}
	})

	// A client is told, at the deadline.
	type answer struct {
		verb, out string
		err       error
		took      time.Duration
	}
	verbs := [][]string{
		{"exec", a, "--", "/bin/busybox", "true"}, {"ps", a}, {"stats", a}, {"kill", a}, {"stats"},
	}
	answers := make(chan answer, len(verbs))
	for _, v := range verbs {
		go func() {
			began := time.Now()
			out, err := w.run(v...)
			answers <- answer{strings.Join(v, " "), out, err, time.Since(began)}
		}()
	}
	// Others go on meanwhile, and the stopped ones are not taken for dead, also
	// by a daemon that comes new to them.
	w.put(b, w.manifest(b, 2, ""))
	w.until("replace another", w.converged)
	w.stop(unix.SIGTERM)
	w.start()
	w.put(b, w.manifest(b, 3, ""))
	w.until("replace another", w.converged)
	w.quick()
	for range verbs {
		got := <-answers
		// All that run are asked, and the one that does not answer is told of.
		failed := got.err != nil || got.verb == "stats" && strings.Contains(got.out, "warning")
		if !failed || !strings.Contains(got.out, "no answer in time") || got.took > patience {
			t.Errorf("%s: %v after %s: %s", got.verb, got.err, got.took, got.out)
		}
	}
	now := w.twins()
	if now[a] != before[a] || now[c] != before[c] {
		t.Errorf("a stopped sandbox was replaced: %v, before %v", now, before)
	}
	w.remove(a)
	w.remove(c)
	w.settle()
}

// standing is nil if every thread of a process has stopped.
func standing(pid int) error {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no threads of %d: %w", pid, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		// The state follows the name, which may hold anything.
		if i := strings.LastIndexByte(string(b), ')'); i < 0 || !strings.HasPrefix(string(b[i+1:]), " T") {
			return fmt.Errorf("%s: %s", f, b)
		}
	}
	return nil
}

// TestStoppedDaemon: who only looks needs no daemon.
func TestStoppedDaemon(t *testing.T) {
	t.Parallel()
	requireHost(t)
	w := newWorld(t)
	a := w.prefix + "-a"
	w.put(a, w.manifest(a, 1, ""))
	w.start()
	w.settle()
	if err := w.daemon.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.quick()
	if out, err := w.run("exec", a, "--", "/bin/busybox", "echo", "here"); err != nil || out != "here\n" {
		t.Errorf("exec: %v %s", err, out)
	}
	if err := w.daemon.cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.put(a, w.manifest(a, 2, ""))
	w.settle()
}

// quick checks that `get` takes at most 100 ms more than any start of the
// program. The best of several counts: the machine may be busy.
func (w *world) quick() {
	w.t.Helper()
	best := func(args ...string) time.Duration {
		var took []time.Duration
		for range 15 {
			began := time.Now()
			if out, err := w.run(args...); err != nil {
				w.t.Errorf("%v: %v: %s", args, err, out)
			}
			took = append(took, time.Since(began))
		}
		return slices.Min(took)
	}
	get, none := best("get"), best("get", "--help")
	w.t.Logf("get: %s, the program alone: %s", get, none)
	if get > none+100*time.Millisecond {
		w.t.Errorf("get takes %s, the program alone %s", get, none)
	}
}
