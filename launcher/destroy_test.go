// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/cgroup"
)

// watchOpens counts from now on how often a directory is opened, and what is in it.
func watchOpens(t *testing.T, dir string) (count func() (itself, below int)) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	return func() (itself, below int) {
		t.Helper()
		buf := make([]byte, 64<<10)
		n, err := unix.Read(fd, buf)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		for at := 0; at < n; {
			length := int(binary.NativeEndian.Uint32(buf[at+12:]))
			switch mask := binary.NativeEndian.Uint32(buf[at+4:]); {
			case mask&unix.IN_OPEN == 0: // the watch is gone with the directory
			case length == 0:
				itself++
			default:
				below++
			}
			at += unix.SizeofInotifyEvent + length
		}
		return itself, below
	}
}

// The group of a sandbox is opened once when it is destroyed, and not once for each
// thing that is asked of it. It is thawed if its processes do not die, and only then.
func TestDestroyOpensGroupOnce(t *testing.T) {
	t.Parallel()
	host, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 || host.Version() == "none" {
		hosttest.Lacks(t, "needs root and cgroups; uid %d, cgroups %s", os.Geteuid(), host.Version())
	}
	for _, frozen := range []bool{false, true} {
		t.Run(fmt.Sprint("frozen ", frozen), func(t *testing.T) {
			t.Parallel()
			store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { store.Close() })
			l, err := New(Options{Store: store})
			if err != nil {
				t.Fatal(err)
			}
			boot, err := process.BootID()
			if err != nil {
				t.Fatal(err)
			}
			place := cgroup.Place(fmt.Sprintf("sbctl-test-%d-destroy-%v", os.Getpid(), frozen))
			group, err := host.CreateAt("web-"+actual.NewUID(), place, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				for _, d := range group.Dirs() {
					_ = unix.Rmdir(d)
				}
				group.Close()
			})
			sentry := act(t, "", "sleep", "1000")
			if err := group.Add(sentry.id.PID); err != nil {
				t.Fatal(err)
			}
			rec := &actual.Record{
				Version: actual.RecordVersion, Name: "web", UID: "u", Attempt: 1, Phase: actual.PhaseRunning, BootID: boot,
				Sentry: &sentry.id, Cgroups: group.Dirs(), CgroupPlace: string(place), Containers: []actual.Container{{Name: actual.AppName}},
			}
			if err := errors.Join(store.Claim("web"), store.Put(rec)); err != nil {
				t.Fatal(err)
			}
			if frozen {
				freeze(t, group.Dirs())
			}
			counts, v2Kills := map[string]func() (int, int){}, map[string]bool{}
			for _, d := range group.Dirs() {
				if _, err := os.Stat(filepath.Join(d, "cgroup.kill")); err == nil {
					v2Kills[d] = true
				}
				counts[d] = watchOpens(t, d)
			}
			if err := l.Destroy(t.Context(), "web", actual.Ending{Reason: actual.ReasonManifestRemoved}); err != nil {
				t.Fatal(err)
			}
			if sentry.alive(t) {
				t.Error("it lives")
			}
			for d, count := range counts {
				itself, below := count()
				if !frozen && itself != 1 || frozen && itself == 0 {
					t.Errorf("%s was opened %d times", d, itself)
				}
				// How much memory it was killed for, and with cgroup2 in the same directory
				// the order to kill all of it.
				most := 1
				if v2Kills[d] {
					most = 2
				}
				if !frozen && below > most {
					t.Errorf("%d files of %s were opened", below, d)
				}
				if _, err := os.Stat(d); err == nil {
					t.Errorf("%s is left", d)
				}
			}
		})
	}
}

// freeze freezes a group in every hierarchy that can.
func freeze(t *testing.T, dirs []string) {
	t.Helper()
	tried := 0
	for _, d := range dirs {
		for file, value := range map[string]string{"cgroup.freeze": "1", "freezer.state": "FROZEN"} {
			if err := os.WriteFile(filepath.Join(d, file), []byte(value), 0); err == nil {
				tried++
			}
		}
	}
	if tried == 0 {
		t.Error("no hierarchy of this host can be frozen")
	}
}
