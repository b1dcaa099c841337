// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// quota is a large disk of whose room a quota gives the state 24 MiB.
func quota(t *testing.T, at string) {
	t.Helper()
	img := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(img)
	must(t, err)
	must(t, errors.Join(f.Truncate(256<<20), f.Close()))
	if out, err := exec.Command("mkfs.btrfs", "-q", img).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.btrfs: %v\n%s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", img, at).CombinedOutput(); err != nil {
		t.Skipf("no loop devices, or no btrfs, here: %v\n%s", err, out)
	}
	for _, args := range [][]string{{"quota", "enable", at}, {"qgroup", "limit", "24M", at}} {
		if out, err := exec.Command("btrfs", args...).CombinedOutput(); err != nil {
			t.Fatalf("btrfs %s: %v\n%s", args, err, out)
		}
	}
	must(t, os.Chmod(at, 0o700))
}

// A quota of the state runs out although its disk has room, and whatever becomes free
// is taken at once. A quota group of btrfs is the hardest one: it lets nothing be
// written, not even over files that are there, so that the reserve is no help. What is
// wanted runs on, nothing is lost, it is told, and all is done when there is room.
func TestQuota(t *testing.T) {
	requireHost(t)
	w := newWorld(t, "--resync", "1s")
	quota(t, w.state)
	a, b, keep := w.prefix+"-a", w.prefix+"-b", w.prefix+"-keep"
	for _, n := range []string{a, b, keep} {
		w.put(n, w.manifest(n, 1, ""))
	}
	w.start()
	w.settle()
	before := w.twins()
	f := fill(w.state, takeBytes)
	ended := false
	end := func() {
		if !ended {
			ended = true
			f.end()
		}
	}
	defer end()
	<-f.full
	if err := takeBytes(w.state, 0); !errors.Is(err, unix.EDQUOT) {
		t.Fatalf("there is no room: %v, expected %v", err, unix.EDQUOT)
	}
	since := int64(0)
	told := func() error {
		if !strings.Contains(w.logFrom(since), unix.EDQUOT.Error()) {
			return fmt.Errorf("it does not say so:\n%s", w.tail())
		}
		return nil
	}
	w.remove(a)
	w.until("the first daemon has tried", told)
	w.stop(unix.SIGKILL)
	since = w.logSize()
	w.put(keep, w.manifest(keep, 2, ""))
	w.start()
	w.until("the second daemon has tried", told)
	w.until("get knows that it runs", func() error {
		if out, err := w.run("get"); err != nil || !strings.Contains(out, keep) || strings.Contains(out, "not running") {
			return fmt.Errorf("%v\n%s", err, out)
		}
		return nil
	})
	now := w.twins()
	for _, n := range []string{b, keep} {
		if was := before[n]; now[n] != was || !alive(&was.sentry) {
			t.Errorf("%s was %v and is %v\n%s", n, before[n], now[n], w.tail())
		}
	}
	end()
	must(t, os.Remove(filepath.Join(w.state, "ballast")))
	w.until("the removal is carried out", w.isGone(a))
	w.settle()
	now = w.twins()
	if now[b] != before[b] || now[keep] == before[keep] {
		t.Errorf("when there was room: %v and %v became %v and %v\n%s", before[b], before[keep], now[b], now[keep], w.tail())
	}
}
