// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// filler takes all the room of a directory, and whatever becomes free, until it is
// told to stop.
type filler struct {
	stop, done chan struct{}
	full       chan struct{}
}

func fill(dir string, step func(dir string, n int) error) *filler {
	f := &filler{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(f.done)
		full := f.full
		for n := 0; ; n++ {
			select {
			case <-f.stop:
				return
			default:
			}
			if step(dir, n) == nil {
				continue
			}
			if full != nil {
				close(full)
				full = nil
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return f
}

func (f *filler) end() {
	close(f.stop)
	<-f.done
}

// takeBytes appends to one file, as an application with a log of its own does.
func takeBytes(dir string, _ int) error {
	f, err := os.OpenFile(filepath.Join(dir, "ballast"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(make([]byte, 4096))
	return err
}

func takeFiles(dir string, n int) error {
	err := os.Mkdir(filepath.Join(dir, "ballast"), 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "ballast", fmt.Sprint(n)), nil, 0o600)
}

// ext4 is an image of a small disk with blocks that only root may use, mounted.
func ext4(t *testing.T, at string, args ...string) {
	t.Helper()
	img := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(img)
	must(t, err)
	must(t, errors.Join(f.Truncate(24<<20), f.Close()))
	out, err := exec.Command("mkfs.ext4", append(append([]string{"-q", "-F"}, args...), img)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", img, at).CombinedOutput(); err != nil {
		t.Skipf("no loop devices here: %v\n%s", err, out)
	}
	must(t, os.Chmod(at, 0o700))
}

// What fills a disk can be removed although the removal is written down first,
// while something takes every block that becomes free. A daemon can start. Nothing
// is started, and what runs and is wanted goes on. It is told, and heals.
func TestFullDiskRemoval(t *testing.T) {
	requireHost(t)
	for what, c := range map[string]struct {
		mount func(t *testing.T, at string)
		take  func(dir string, n int) error
	}{
		"tmpfs": {func(t *testing.T, at string) { must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "size=4m,mode=0700")) }, takeBytes},
		"tmpfs inodes": {func(t *testing.T, at string) {
			must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "size=64m,nr_inodes=120,mode=0700"))
		}, takeFiles},
		"ext4":             {func(t *testing.T, at string) { ext4(t, at) }, takeBytes},
		"ext4 for root":    {func(t *testing.T, at string) { ext4(t, at, "-m", "20") }, takeBytes},
		"ext4 inodes":      {func(t *testing.T, at string) { ext4(t, at, "-N", "120") }, takeFiles},
		"ext4 without log": {func(t *testing.T, at string) { ext4(t, at, "-O", "^has_journal") }, takeBytes},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "--resync", "1s")
			c.mount(t, w.state)
			a, b, keep := w.prefix+"-a", w.prefix+"-b", w.prefix+"-keep"
			for _, n := range []string{a, b, keep} {
				w.put(n, w.manifest(n, 1, ""))
			}
			w.start()
			w.settle()
			before := w.twins()
			f := fill(w.state, c.take)
			end := sync.OnceFunc(f.end)
			defer end()
			<-f.full
			w.until("get says that the disk is full", func() error {
				out, err := w.run("get")
				if err != nil || !strings.Contains(out, "DiskPressure") || strings.Contains(out, "not running") {
					return fmt.Errorf("%v\n%s", err, out)
				}
				return nil
			})
			// Removed, one under this daemon and one under the next.
			w.remove(a)
			w.until("the first is gone", w.isGone(a))
			w.stop(unix.SIGKILL)
			w.remove(b)
			w.start()
			w.until("the second is gone", w.isGone(b))
			// The daemon could not write who it is.
			if out, err := w.run("get"); err != nil || strings.Contains(out, "not running") {
				t.Errorf("get: %v\n%s", err, out)
			}
			if out, err := w.run("doctor"); err == nil || !strings.Contains(out, "DiskPressure") {
				t.Errorf("doctor: %v\n%s", err, out)
			}
			// What would be replaced runs on.
			w.put(keep, w.manifest(keep, 2, ""))
			w.until("the daemon has tried", func() error {
				if !strings.Contains(w.tail(), unix.ENOSPC.Error()) {
					return errors.New("it has not")
				}
				return nil
			})
			if now := w.twins()[keep]; now != before[keep] || !alive(&now.sentry) {
				t.Errorf("%s was %v and is %v\n%s", keep, before[keep], now, w.tail())
			}
			end()
			must(t, os.RemoveAll(filepath.Join(w.state, "ballast")))
			w.settle()
			if now := w.twins(); now[keep] == before[keep] {
				t.Errorf("%s was not replaced when there was room\n%s", keep, w.tail())
			}
			w.until("get is content", func() error {
				if out, err := w.run("get"); err != nil || strings.Contains(out, "DiskPressure") {
					return fmt.Errorf("%v\n%s", err, out)
				}
				return nil
			})
		})
	}
}

func (w *world) isGone(name string) func() error {
	return func() error {
		if w.daemon.ended() {
			w.t.Fatalf("the daemon has ended: %v\n%s", w.daemon.err, w.tail())
		}
		_, err := os.Stat(filepath.Join(w.state, "sandboxes", name))
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("it is there: %v\n%s", err, w.tail())
		}
		return nil
	}
}
