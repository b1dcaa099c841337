// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// exhausted runs two sandboxes, has the host run out of something, and changes
// one of them: the other lives through it, somebody says why nothing becomes of
// the change, and it comes about when there is enough again.
func exhausted(t *testing.T, w *world, errno unix.Errno, begin, end func()) {
	t.Helper()
	a, keep := w.prefix+"-a", w.prefix+"-keep"
	w.put(a, w.manifest(a, 1, ""))
	w.put(keep, w.manifest(keep, 1, ""))
	w.start()
	w.settle()
	before, from := w.twins(), w.logSize()
	begin()
	w.put(a, w.manifest(a, 2, ""))
	w.until("the daemon says what there is too little of", func() error {
		if w.daemon.ended() {
			t.Fatalf("the daemon has ended: %v\n%s", w.daemon.err, w.tail())
		}
		if log := w.logFrom(from); !strings.Contains(log, errno.Error()) {
			return fmt.Errorf("log: %q", log)
		}
		return nil
	})
	out, err := w.run("get", a)
	if err != nil || strings.Contains(out, "Running   True") && !strings.Contains(out, "SpecChanged") {
		t.Errorf("get: %v\n%s", err, out)
	}
	if out, err := w.run("exec", keep, "--", "/bin/busybox", "true"); err != nil {
		t.Errorf("exec: %v\n%s", err, out)
	}
	end()
	w.settle()
	if after := w.twins(); after[keep] != before[keep] {
		t.Errorf("the sandbox that nobody touched was %v and is %v\n%s", before[keep], after[keep], w.tail())
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	requireHost(t)
	w := newWorld(t, "--resync", "1s")
	must(t, unix.Mount("tmpfs", w.state, "tmpfs", 0, "size=1m,mode=0700"))
	ballast := filepath.Join(w.state, "ballast")
	exhausted(t, w, unix.ENOSPC, func() {
		f, err := os.Create(ballast)
		must(t, err)
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		// What cannot be written down is not begun: both run on.
		a := w.prefix + "-a"
		was := w.twins()[a]
		w.put(a, w.manifest(a, 2, ""))
		w.until("the daemon has tried", func() error {
			if !strings.Contains(w.tail(), unix.ENOSPC.Error()) {
				return fmt.Errorf("it has not")
			}
			return nil
		})
		if w.twins()[a] != was || !alive(&was.sentry) {
			t.Errorf("a full disk has stopped %s", a)
		}
		if out, err := w.run("get"); err != nil || !strings.Contains(out, "no space left") {
			t.Errorf("get does not say that the disk is full: %v\n%s", err, out)
		}
		// One that dies now stays dead until that can be written down.
		p := w.process(a, "sentry")
		send(t, p, unix.SIGKILL)
		p.Close()
	}, func() { must(t, os.Remove(ballast)) })
}

func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	requireHost(t)
	w := newWorld(t, "--resync", "1s")
	var old unix.Rlimit
	exhausted(t, w, unix.EMFILE, func() {
		pid := w.daemon.cmd.Process.Pid
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		must(t, err)
		// What it has, and four: a pass needs that many.
		must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old))
		must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(fds)) + 4, Max: old.Max}, nil))
	}, func() {
		must(t, unix.Prlimit(w.daemon.cmd.Process.Pid, unix.RLIMIT_NOFILE, &old, nil))
	})
}

// pidsGroup is a control group for the number of processes, "" if this host has
// none.
func pidsGroup(t *testing.T) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		dir := filepath.Join(root, fmt.Sprintf("test-%08x", rand.Uint32()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			// Sandboxes that were started from it are gone in a moment.
			deadline := time.Now().Add(patience)
			for err := unix.Rmdir(dir); err != nil; err = unix.Rmdir(dir) {
				if time.Now().After(deadline) {
					t.Errorf("remove %s: %v", dir, err)
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		if _, err := os.Stat(filepath.Join(dir, "pids.max")); err == nil {
			return dir
		}
	}
	return ""
}

// Go makes a thread where it needs one, and ends where it can't: a daemon that
// meets the limit of processes is at worst one that was killed.
func TestProcessLimit(t *testing.T) {
	t.Parallel()
	requireHost(t)
	group := pidsGroup(t) // before the world, since it is taken away after it
	if group == "" {
		t.Skip("this host does not count processes")
	}
	w := newWorld(t, "--resync", "1s")
	a, keep := w.prefix+"-a", w.prefix+"-keep"
	w.put(a, w.manifest(a, 1, ""))
	w.put(keep, w.manifest(keep, 1, ""))
	w.start()
	w.settle()
	before, from := w.twins(), w.logSize()
	set := func(file, value string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(group, file), []byte(value), 0o644))
	}
	set("cgroup.procs", strconv.Itoa(w.daemon.cmd.Process.Pid))
	b, err := os.ReadFile(filepath.Join(group, "pids.current"))
	must(t, err)
	set("pids.max", strings.TrimSpace(string(b)))
	w.put(a, w.manifest(a, 2, ""))
	w.until("the limit is met", func() error {
		if log := w.logFrom(from); !w.daemon.ended() && !strings.Contains(log, unix.EAGAIN.Error()) {
			return fmt.Errorf("log: %q", log)
		}
		return nil
	})
	died := w.daemon.ended()
	t.Logf("the daemon has ended: %v", died)
	if died && !strings.Contains(w.logFrom(from), "failed to create new OS thread") {
		t.Errorf("the daemon has ended: %v\n%s", w.daemon.err, w.logFrom(from))
	}
	if out, err := w.run("get", keep); err != nil || !strings.Contains(out, "Running") {
		t.Errorf("get: %v\n%s", err, out)
	}
	set("pids.max", "max")
	if died {
		w.start()
	}
	w.settle()
	if after := w.twins(); after[keep] != before[keep] {
		t.Errorf("the sandbox that nobody touched was %v and is %v\n%s", before[keep], after[keep], w.tail())
	}
	w.stop(unix.SIGTERM)
}

// TestReadOnlyState: a daemon that finds its state directory on a filesystem that
// became read-only says so and ends; what runs goes on, and can be looked at.
func TestReadOnlyState(t *testing.T) {
	t.Parallel()
	requireHost(t)
	w := newWorld(t)
	a := w.prefix + "-a"
	w.put(a, w.manifest(a, 1, ""))
	w.start()
	w.settle()
	before := w.twins()
	w.stop(unix.SIGTERM)
	// A mount of its own: nothing is open for writing on it, which would keep it
	// from becoming read-only.
	must(t, unix.Mount(w.state, w.state, "", unix.MS_BIND, ""))
	must(t, unix.Mount("", w.state, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	from := w.logSize()
	w.start()
	w.until("the daemon ends", func() error {
		if !w.daemon.ended() {
			return fmt.Errorf("it runs")
		}
		return nil
	})
	if log := w.logFrom(from); !strings.Contains(log, "sandboxctl: ") || !strings.Contains(log, unix.EROFS.Error()) {
		t.Errorf("the daemon does not say why it has ended: %s", log)
	}
	if out, err := w.run("get"); err != nil || !strings.Contains(out, "Running") || !strings.Contains(out, "read-only") {
		t.Errorf("get: %v\n%s", err, out)
	}
	must(t, unix.Unmount(w.state, 0))
	w.start()
	w.settle()
	if after := w.twins(); after[a] != before[a] {
		t.Errorf("%s was %v and is %v", a, before[a], after[a])
	}
}
