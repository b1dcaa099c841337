// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/process"
)

// A sandbox that is moved into the trash while it is looked for is there or is
// not: it is not one that can't be read.
func TestLookWhileRemoved(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	put(t, s, sample("web"))
	from, to := filepath.Join(s.Path(), SandboxesDir, "web"), filepath.Join(s.Path(), TrashDir, "web")
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := errors.Join(os.Rename(from, to), os.Rename(to, from)); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 60000 {
		d, err := s.Dir("web")
		if err == nil {
			d.Close()
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
			break
		}
	}
	close(stop)
	must(t, <-done)
}

// Who looks while a sandbox is being made sees it or not, and never one that has
// lost its record: everything else in its directory is younger than that.
func TestLookWhileMade(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	dir := filepath.Join(s.Path(), SandboxesDir, "web")
	tmp := filepath.Join(dir, atomicfile.TempPrefix+"0")
	b, err := EncodeRecord(sample("web"))
	must(t, err)
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			// As a create does it, without waiting for the disk.
			err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(tmp, b, 0o600), os.Rename(tmp, metaPath(s, "web")),
				os.WriteFile(filepath.Join(dir, ExitFile), nil, 0o600), os.Rename(dir, filepath.Join(s.Path(), TrashDir, "web")), os.RemoveAll(filepath.Join(s.Path(), TrashDir, "web")))
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for range 30000 {
		if _, quarantined := s.decode("web"); quarantined != nil && quarantined.Reason == QuarantinedCorrupt {
			t.Error(quarantined.Message)
			break
		}
	}
	close(stop)
	must(t, <-done)
}

// A record that can't be read for a moment, here because of a lease that somebody
// has on it, is quarantined for that moment and no longer.
func TestHeldForAMoment(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	put(t, s, sample("web"))
	f, err := os.OpenFile(metaPath(s, "web"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	if rec, quarantined, err := s.Get("web"); rec != nil || quarantined == nil || quarantined.Reason != QuarantinedUnreadable || err != nil {
		t.Fatalf("%v %v %v", rec, quarantined, err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	if rec, quarantined, err := s.Get("web"); rec == nil || quarantined != nil || err != nil {
		t.Errorf("%v %v %v", rec, quarantined, err)
	}
}

// A child of a killed daemon holds its lock for a moment: that is no other
// daemon. One that lives is, at once.
func TestLockOfTheDead(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	child, err := os.Open(s.Path())
	must(t, err)
	must(t, unix.Flock(int(child.Fd()), unix.LOCK_EX))
	time.AfterFunc(300*time.Millisecond, func() { child.Close() })
	must(t, s.Lock())

	self, err := unix.PidfdOpen(os.Getpid(), 0)
	must(t, err)
	defer unix.Close(self)
	id, err := process.Identify(self, os.Getpid())
	must(t, err)
	must(t, s.PutDaemonInfo(&DaemonInfo{Process: id}))
	second, err := OpenStore(s.Path())
	must(t, err)
	defer second.Close()
	began := time.Now()
	if err := second.Lock(); !errors.Is(err, ErrLocked) || time.Since(began) >= lockPatience {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}
