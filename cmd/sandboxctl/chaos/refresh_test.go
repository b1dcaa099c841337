// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// refreshCalls are the system calls that new files for a sandbox are made with, and those
// that lead there.
var refreshCalls = []string{"unshare", "setns", "openat2", "openat", "statx", "open_tree", "fstatfs", "mount_setattr", "getdents64", "pwrite64", "fchmod", "renameat", "unlinkat", "mkdirat", "connect", "socket", "pidfd_open"}

// refresh gives a sandbox that runs new files, and looks that it has them, whatever fails.
func (l *lane) refresh(n int, fail func(call string, n int, arg argument) unix.Errno, errno unix.Errno) *injector {
	l.t.Helper()
	a := l.name("r")
	value := filepath.Join(l.dir, "files", a)
	must(l.t, os.MkdirAll(filepath.Dir(value), 0o700))
	write := func(text string) {
		must(l.t, os.WriteFile(value+".new", []byte(text), 0o600))
		must(l.t, os.Rename(value+".new", value))
	}
	write("old")
	l.put(a, l.manifest(a, 1, fmt.Sprintf("  volumes: [{name: v, mountPath: /v, secret: {mode: \"0400\", files: {d/value: %s}, onChange: signal}}]\n", value)))
	l.start()
	l.settle()
	before := l.twins()[a]
	l.stop(unix.SIGTERM)
	text := fmt.Sprintf("new content %d", n)
	write(text)
	l.began, l.clean = l.logSize(), false
	in := l.inject(fail)
	l.world.until("refresh", func() error {
		l.live(errno)
		rec := l.record(a)
		if rec == nil || rec.Gofer == nil {
			return fmt.Errorf("the record is %+v", rec)
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/m1/d/value", rec.Gofer.PID))
		if err != nil || string(b) != text || rec.Refresh == nil || len(rec.Refresh.Pending) > 0 {
			return fmt.Errorf("it has %q, expected %q; %+v, %w", b, text, rec.Refresh, err)
		}
		return nil
	})
	if now := l.twins()[a]; now != before {
		l.t.Errorf("it was %v and is %v\n%s", before, now, l.logFrom(l.began))
	}
	l.await("refresh", errno)
	l.remove(a)
	l.await("remove", errno)
	l.stop(unix.SIGTERM)
	return in
}

// TestEveryCallOfRefreshFails has system calls of the daemon fail once while it gives a
// sandbox new files: the sandbox goes on, and has them in the end. FAULTS and FAULT are as for
// TestEveryCallFailsOnce.
func TestEveryCallOfRefreshFails(t *testing.T) {
	requireHost(t)
	count := newLane(t).refresh(0, never, 0).total()
	for call := range count {
		if !slices.Contains(refreshCalls, call) {
			delete(count, call)
		}
	}
	all := allFaults(t, count)
	t.Logf("%d faults, calls of a run without: %v", len(all), count)
	for _, call := range []string{"setns", "open_tree", "mount_setattr", "pwrite64", "renameat"} {
		if count[call] == 0 {
			t.Errorf("nothing calls %s", call)
		}
	}
	if one := os.Getenv("FAULT"); one != "" {
		all = slices.DeleteFunc(all, func(f oneFault) bool { return f.String() != one })
	} else if n := int(number(t, "FAULTS", 30)); n > 0 && n < len(all) {
		all = spread(all, n, number(t, "SEED", 1))
	}
	var mu sync.Mutex
	hit, silent, n := 0, 0, 0
	began := time.Now()
	lanes(t, all, func(l *lane, f oneFault) {
		l.t.Logf("FAULT=%s", f)
		mu.Lock()
		n++
		mine := n
		mu.Unlock()
		in := l.refresh(mine, once(f), f.errno)
		mu.Lock()
		defer mu.Unlock()
		for _, what := range in.faults() {
			hit++
			if strings.Contains(l.logFrom(l.began), f.errno.Error()) {
				continue
			}
			silent++
			if !isAbsorbed(f, what.path) {
				l.t.Errorf("nobody was told of FAULT=%s at %s\n%s", f, what.path, l.logFrom(l.began))
			}
		}
	})
	t.Logf("%d of %d faults came about in %s, of which %d were absorbed without a word", hit, len(all), time.Since(began).Round(time.Second), silent)
}
