// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/gofer/sandboxlog"
)

// keeper keeps the logs of deleted sandboxes.
func keeper(t *testing.T, keep time.Duration) *Keeper {
	t.Helper()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return &Keeper{Store: store, KeepDeleted: keep, Log: slog.New(slog.DiscardHandler)}
}

const linePrefix = "2026-01-02T03:04:05Z stdout F "

// stopped makes a sandbox that has stopped, with a log of each of two attempts. It
// returns its log directory.
func stopped(t *testing.T, l *Keeper, name, text string, size int64) string {
	t.Helper()
	if err := l.Store.Claim(name); err != nil {
		t.Fatal(err)
	}
	rec := &actual.Record{Version: actual.RecordVersion, Name: name, UID: "0123", Attempt: 2, Phase: actual.PhaseStopped, Containers: []actual.Container{{Name: actual.AppName}}}
	if err := l.Store.Put(rec); err != nil {
		t.Fatal(err)
	}
	logs := filepath.Join(l.Store.Path(), actual.SandboxesDir, name, sandboxlog.Dir)
	for i, attempt := range []string{"1", "2"} {
		p := filepath.Join(logs, attempt, AppFile)
		body := make([]byte, size)
		copy(body, fmt.Sprintf("%s%s %d\n", linePrefix, text, i+1))
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, body, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return logs
}

// remove does what a launcher does to forget a sandbox.
func remove(l *Keeper, name string) error {
	if err := l.Keep(name, 2); err != nil {
		l.Log.Warn("logs of a deleted sandbox are not kept", "sandbox", name, "err", err)
	}
	return l.Store.Remove(name)
}

func forget(t *testing.T, l *Keeper, name string) {
	t.Helper()
	if err := remove(l, name); err != nil {
		t.Fatal(err)
	}
	if rec, held, err := l.Store.Get(name); rec != nil || held != nil || err != nil {
		t.Errorf("%s is still on record: %v %v %v", name, rec, held, err)
	}
}

// kept are the names whose logs are kept, the last deleted first.
func kept(t *testing.T, l *Keeper) []string {
	t.Helper()
	list, err := l.Store.ListDeleted()
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, d := range list {
		names = append(names, d.Name)
	}
	return names
}

func readLog(t *testing.T, l *Keeper, d *actual.Deleted, attempt int64) string {
	t.Helper()
	logs, err := OpenDeleted(l.Store, d, attempt)
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	var out strings.Builder
	fo := logs.App()
	defer fo.Close()
	if err := fo.Next(func(e sandboxlog.Entry) error { out.Write(e.Text); return nil }); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// The logs of both runs of a deleted sandbox can be read, also beside those of one
// that had its name before; their time is bounded, whatever the clock does.
func TestKeepDeleted(t *testing.T) {
	t.Parallel()
	l := keeper(t, time.Hour)
	for _, text := range []string{"old", "new"} {
		stopped(t, l, "web", text, 4096)
		forget(t, l, "web")
	}
	list, err := l.Store.ListDeleted()
	if err != nil || len(list) != 2 {
		t.Fatalf("%v %v", list, err)
	}
	for i, text := range []string{"new", "old"} {
		for attempt := int64(1); attempt <= 2; attempt++ {
			if got, want := readLog(t, l, list[i], attempt), fmt.Sprintf("%s %d", text, attempt); got != want {
				t.Errorf("%q, expected %q", got, want)
			}
		}
	}
	// The next sandbox of that name has nothing of it.
	logs := stopped(t, l, "web", "next", 4096)
	if got := entries(t, logs); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("%q", got)
	}

	for what, c := range map[string]struct {
		moved time.Duration // of the clock since it was deleted
		kept  bool
	}{
		"soon":              {59 * time.Minute, true},
		"later":             {61 * time.Minute, false},
		"clock set back":    {-time.Minute, true},
		"clock of long ago": {-50 * 365 * 24 * time.Hour, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := keeper(t, time.Hour)
			stopped(t, l, "web", "x", 4096)
			forget(t, l, "web")
			list, err := l.Store.ListDeleted()
			if err != nil || len(list) != 1 {
				t.Fatalf("%v %v", list, err)
			}
			left, err := l.expireDeleted(list[0].At.Add(c.moved))
			if err != nil || (len(left) > 0) != c.kept || (len(kept(t, l)) > 0) != c.kept {
				t.Errorf("%v %v, expected kept: %v", left, err, c.kept)
			}
		})
	}
}

// Nobody fills the disk by deleting: what is kept has a bound in bytes and in
// number, counts among all logs, and is dropped before those of any sandbox.
func TestKeepDeletedBounds(t *testing.T) {
	t.Parallel()
	t.Run("number", func(t *testing.T) {
		t.Parallel()
		l := keeper(t, time.Hour)
		for i := range actual.MaxDeleted + 3 {
			stopped(t, l, fmt.Sprintf("n%d", i), "x", 100)
			forget(t, l, fmt.Sprintf("n%d", i))
		}
		got := kept(t, l)
		if len(got) > actual.MaxDeleted+1 || slices.Contains(got, "n0") || got[0] != fmt.Sprintf("n%d", actual.MaxDeleted+2) {
			t.Errorf("%d: %v", len(got), got)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		t.Parallel()
		l := keeper(t, time.Hour)
		for _, n := range []string{"a", "b", "c"} {
			stopped(t, l, n, n, 12<<20)
			forget(t, l, n)
		}
		// 72 MiB are 8 too many: the older run of the one that was deleted first.
		list, err := l.Store.ListDeleted()
		if err != nil || len(list) != 3 || readLog(t, l, list[2], 1)+readLog(t, l, list[2], 2) != "a 2" || readLog(t, l, list[0], 1) != "c 1" {
			t.Errorf("%v %v", list, err)
		}
		// One alone that is too large keeps its last run.
		stopped(t, l, "big", "big", 40<<20)
		forget(t, l, "big")
		list, err = l.Store.ListDeleted()
		if err != nil || list[0].Name != "big" || readLog(t, l, list[0], 2) != "big 2" {
			t.Errorf("%v %v", list, err)
		}
		left, err := l.expireDeleted(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var sum uint64
		for _, f := range left {
			sum += f.bytes
		}
		if sum > maxDeletedLogs || sum < 40<<20 {
			t.Errorf("%d bytes are kept", sum)
		}
	})
	t.Run("all logs", func(t *testing.T) {
		t.Parallel()
		l := keeper(t, time.Hour)
		stopped(t, l, "gone", "x", 64<<10)
		forget(t, l, "gone")
		own := stopped(t, l, "web", "x", 64<<10)
		// Older than what is kept.
		at := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(own, "1", AppFile), at, at); err != nil {
			t.Fatal(err)
		}
		l.Space = 128 << 10
		if freed, err := l.Trim(); err != nil || freed != 128<<10 {
			t.Errorf("%d %v", freed, err)
		}
		if got := len(entries(t, own)); got != 2 {
			t.Errorf("%d attempts of a sandbox are left", got)
		}
		if _, err := l.Trim(); err != nil {
			t.Fatal(err)
		}
		if got := kept(t, l); len(got) > 0 {
			t.Errorf("%v: nothing is left of it", got)
		}
	})
	t.Run("off", func(t *testing.T) {
		t.Parallel()
		l := keeper(t, time.Hour)
		stopped(t, l, "before", "x", 100)
		forget(t, l, "before")
		l.KeepDeleted = 0
		stopped(t, l, "web", "x", 100)
		forget(t, l, "web")
		if _, err := l.Trim(); err != nil {
			t.Fatal(err)
		}
		if got := kept(t, l); len(got) > 0 {
			t.Errorf("%v", got)
		}
	})
}

// What a gofer that was taken over has put there is not kept, and what can't be
// kept is no reason not to delete.
func TestKeepDeletedHostile(t *testing.T) {
	t.Parallel()
	for what, plant := range map[string]func(logs string) error{
		"fifo": func(p string) error { return unix.Mkfifo(p+"/2/x", 0o600) },
		"fifo log": func(p string) error {
			return errors.Join(os.Remove(p+"/2/app.log"), unix.Mkfifo(p+"/2/app.log", 0o600))
		},
		"link":        func(p string) error { return os.Symlink("/etc/passwd", p+"/2/sentry.log") },
		"tree":        func(p string) error { return os.MkdirAll(p+"/1/a/b", 0o700) },
		"other file":  func(p string) error { return os.WriteFile(p+"/1/core", make([]byte, 1<<20), 0o600) },
		"no logs":     func(p string) error { return errors.Join(os.RemoveAll(p), os.Mkdir(p, 0o700)) },
		"nothing":     os.RemoveAll,
		"logs a file": func(p string) error { return errors.Join(os.RemoveAll(p), os.WriteFile(p, nil, 0o600)) },
		"kept a file": func(p string) error {
			return os.WriteFile(filepath.Join(p, "../../..", actual.DeletedDir), nil, 0o600)
		},
		"kept a link": func(p string) error { return os.Symlink("/tmp", filepath.Join(p, "../../..", actual.DeletedDir)) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := keeper(t, time.Hour)
			if err := plant(stopped(t, l, "web", "x", 100)); err != nil {
				t.Fatal(err)
			}
			forget(t, l, "web")
			if got := entries(t, filepath.Join(l.Store.Path(), actual.TrashDir)); len(got) > 0 {
				t.Errorf("in the trash: %v", got)
			}
			got, err := os.ReadDir(filepath.Join(l.Store.Path(), actual.DeletedDir))
			if len(got) > 0 && !strings.HasPrefix(what, "kept") || err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
				t.Errorf("%v %v", got, err)
			}
		})
	}
}

// Several remove old logs at a time, and sandboxes go meanwhile: what another one has
// taken is told by nobody.
func TestRemoversOfLogs(t *testing.T) {
	t.Parallel()
	first := keeper(t, time.Hour)
	var said lockedBuffer
	keepers := []*Keeper{first}
	for range 3 {
		keepers = append(keepers, &Keeper{Store: first.Store, KeepDeleted: time.Hour})
	}
	for _, l := range keepers {
		l.Space, l.Log = 1, slog.New(slog.NewTextHandler(&said, nil))
	}
	const rounds = 60
	for i := range rounds {
		stopped(t, first, fmt.Sprintf("s%d", i), "text", 100)
	}
	var all sync.WaitGroup
	for n, l := range keepers {
		all.Go(func() {
			for i := range rounds {
				if i%len(keepers) == n {
					if err := remove(l, fmt.Sprintf("s%d", i)); err != nil {
						t.Errorf("forget: %v", err)
					}
				}
				if _, err := l.Trim(); err != nil {
					t.Errorf("trim: %v", err)
				}
				if _, err := first.Store.SweepTrash(); err != nil {
					t.Errorf("sweep: %v", err)
				}
			}
		})
	}
	all.Wait()
	if said.String() != "" {
		t.Error(said.String())
	}
}

// lockedBuffer is a buffer that several write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// opened counts how often entries of a directory are opened while f runs.
func opened(t *testing.T, dir string, f func()) int {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	f()
	buf := make([]byte, 1<<20)
	n, err := unix.Read(fd, buf)
	if errors.Is(err, unix.EAGAIN) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for at := 0; at < n; {
		length := int(binary.NativeEndian.Uint32(buf[at+12:]))
		if length > 0 { // without a name it is the directory itself
			count++
		}
		at += unix.SizeofInotifyEvent + length
	}
	return count
}

// What each removal costs does not grow with the number of those before: the logs of
// none of them are read again, but by a daemon that does not know them.
func TestKeepDeletedReadsOnce(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 20, actual.MaxDeleted + 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			l := keeper(t, time.Hour)
			for i := range n {
				stopped(t, l, fmt.Sprintf("n%d", i), "x", 100)
			}
			forget(t, l, "n0")
			dir := filepath.Join(l.Store.Path(), actual.DeletedDir)
			got := opened(t, dir, func() {
				for i := 1; i < n; i++ {
					forget(t, l, fmt.Sprintf("n%d", i))
				}
			})
			if got > 0 {
				t.Errorf("kept logs were opened %d times in %d removals", got, n)
			}
			left := len(kept(t, l))
			next := &Keeper{Store: l.Store, KeepDeleted: l.KeepDeleted, Log: l.Log}
			for i, want := range []int{left, 0} {
				if got := opened(t, dir, func() {
					if _, err := next.Trim(); err != nil {
						t.Error(err)
					}
				}); got != want {
					t.Errorf("look %d of the next daemon opened %d kept logs, expected %d of %d", i+1, got, want, left)
				}
			}
		})
	}
}
