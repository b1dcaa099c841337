// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/desired"
)

// asNobody runs f on a thread of its own that the filesystem takes for another
// user's, without root's rights.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	hosttest.NeedsRoot(t, "another user needs root")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: it ends with this
		if err := unix.Setfsuid(65534); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// What the system refuses to read for a while is read when it does not any more,
// although nothing has changed of it.
func TestDirRefused(t *testing.T) {
	t.Parallel()
	for what, path := range map[string]string{"the file": "m/a.yaml", "a directory below": "m/sub", "the directory": "m"} {
		tr := newTree(t, Options{PollEvery: 50 * time.Millisecond})
		tr.write("a.yaml", named("a"))
		tr.write("sub/b.yaml", named("b"))
		tr.must(os.Chmod(tr.top, 0o755))
		tr.must(os.Chmod(filepath.Dir(tr.top), 0o755))
		tr.must(os.Chmod(filepath.Join(tr.top, path), 0o700))
		asNobody(t, func() {
			for range 2 {
				s, err := tr.dir.Load(context.Background())
				if err != nil || s.Complete {
					t.Errorf("%s is refused: complete %v %v", what, s.Complete, err)
				}
			}
		})
		tr.watching()
		tr.eventually(what+" is read again", func(s *desired.Snapshot) bool { return names(s) == "a b" && s.Complete })
	}
}

// A file that its owner holds a write lease on is being written as far as anybody
// can tell; it holds up nobody, and is read when the lease is gone.
func TestDirLeased(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("a"))
	tr.settled()
	tr.write("a.yaml", manifestOf("a", "edited"))
	f, err := os.OpenFile(filepath.Join(tr.top, "m", "a.yaml"), os.O_RDWR, 0)
	tr.must(err)
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("this filesystem has no leases: %v", err)
	}
	// The kernel tells the holder that somebody wants the file, and takes the
	// lease away after 45 seconds (fs.lease-break-time).
	signal.Ignore(unix.SIGIO)
	defer signal.Reset(unix.SIGIO)
	began := time.Now()
	s := tr.load()
	tr.expect(s, "a", desired.ReasonUnsettled)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it held the look up for %s", took)
	}
	if e := s.Lookup("a"); e == nil || e.Sandbox.Spec.Command[0] != "sh" {
		t.Error("it does not keep what it said before")
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	tr.must(err)
	tr.must(f.Close())
	if s := tr.settled(); s.Lookup("a") == nil || s.Lookup("a").Sandbox.Spec.Command[0] != "edited" {
		t.Errorf("not read when it is free: %s", s.Message)
	}
}
