// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// readOnly is not a call: all that would write into the state directory fail.
const readOnly = "read-only"

// persistent are the faults that last: every call with each error that is not
// over by its nature.
func persistent() []oneFault {
	out := []oneFault{{call: readOnly, errno: unix.EROFS}}
	for _, call := range slices.Sorted(maps.Keys(errnos)) {
		for _, e := range errnos[call] {
			if e != unix.EINTR && e != unix.EAGAIN {
				out = append(out, oneFault{call: call, errno: e}, oneFault{call: ofPuller + call, errno: e})
			}
		}
	}
	return out
}

// always fails every call of a kind.
func (l *lane) always(f oneFault) func(string, int, argument) unix.Errno {
	return func(call string, _ int, arg argument) unix.Errno {
		switch {
		case f.call == call && !exempt(call, arg), f.call == readOnly && l.writes(call, arg):
			return f.errno
		}
		return 0
	}
}

// writes says of a call that it changes something in the state directory.
func (l *lane) writes(call string, arg argument) bool {
	switch call {
	case "openat":
		if arg.call.args[2]&(unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT) == 0 {
			return false
		}
	case "mkdirat", "unlinkat", "renameat", "renameat2", "fchmod", "ftruncate":
	default:
		return false
	}
	return strings.HasPrefix(arg.path(), l.state)
}

// TestCallKeepsFailing has a system call of the daemon fail until it is told so:
// what runs goes on, the log names the error, `get` answers, and when the fault
// ends all becomes as the manifests say.
func TestCallKeepsFailing(t *testing.T) {
	requireHost(t)
	all := persistent()
	if one := os.Getenv("FAULT"); one != "" {
		all = slices.DeleteFunc(all, func(f oneFault) bool { return f.lasting() != one })
	} else if n := int(number(t, "LASTING", 20)); n > 0 && n < len(all) {
		all = append(all[:1:1], spread(all[1:], n, number(t, "SEED", 1))[:n-1]...)
	}
	var mu sync.Mutex
	told := 0
	lanes(t, all, func(l *lane, f oneFault) {
		l.t.Logf("FAULT=%s", f.lasting())
		if l.lasts(f) {
			mu.Lock()
			told++
			mu.Unlock()
		}
	})
	t.Logf("%d faults, of which %d kept something from being done", len(all), told)
}

func (f oneFault) lasting() string {
	return fmt.Sprintf("%s:error=%s:when=1+", f.call, unix.ErrnoName(f.errno))
}

// lasts has a fault last, and says whether anything became of it.
func (l *lane) lasts(f oneFault) bool {
	l.t.Helper()
	a, b, c := l.name("a"), l.name("b"), l.name("c")
	l.forget()
	l.began, l.clean = l.logSize(), true
	l.put(a, l.manifest(a, 1, ""))
	l.put(c, l.ofImage(c, 1, "v1"))
	in := l.inject(nil)
	l.await("create", f.errno)
	in.set(l.always(f))
	l.put(a, l.manifest(a, 2, ""))
	l.put(b, l.manifest(b, 1, ""))
	l.put(c, l.ofImage(c, 2, "v2"))
	told := false
	l.until("the fault is named, or nothing comes of it", func() error {
		l.live(f.errno)
		if told = f.named(l.logFrom(l.began)); told {
			return nil
		}
		return l.converged()
	})
	if out, err := l.run("get"); err != nil || !strings.Contains(out, l.name("keep")) {
		l.t.Errorf("get: %v\n%s", err, out)
	}
	if now := l.twins()[l.name("keep")]; now != l.keep {
		l.t.Fatalf("the sandbox that nobody touched was %v and is %v\n%s", l.keep, now, l.logFrom(l.began))
	}
	in.set(nil)
	l.await("heal", f.errno)
	l.remove(a)
	l.remove(b)
	l.remove(c)
	l.await("remove", f.errno)
	l.stop(unix.SIGTERM)
	return told
}
