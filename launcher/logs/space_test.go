// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/gofer/sandboxlog"
)

// manyLogs is a store of sandboxes that have run twice, with logs of 64 KiB each. The
// second's are the older ones.
func manyLogs(t *testing.T, space uint64) (*Keeper, string) {
	t.Helper()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	l := &Keeper{Store: store, Space: space, Log: slog.New(slog.DiscardHandler)}
	for i, name := range []string{"new", "old"} {
		if err := store.Claim(name); err != nil {
			t.Fatal(err)
		}
		rec := &actual.Record{Version: actual.RecordVersion, Name: name, UID: "0123", Attempt: 2, Phase: actual.PhaseStopped, Containers: []actual.Container{{Name: actual.AppName}}}
		if err := store.Put(rec); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"1/app.log", "1/app.log.1", "2/app.log", "2/app.log.1", "2/sentry.log"} {
			p := filepath.Join(store.Path(), "sandboxes", name, sandboxlog.Dir, f)
			at := time.Now().Add(-time.Duration(i) * time.Hour)
			if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, make([]byte, 64<<10), 0o600), os.Chtimes(p, at, at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return l, filepath.Join(store.Path(), "sandboxes")
}

// logsLeft lists the logs that are there.
func logsLeft(t *testing.T, sandboxes string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(sandboxes, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.Contains(p, "/"+sandboxlog.Dir+"/") {
			rel, _ := filepath.Rel(sandboxes, p)
			out = append(out, strings.Replace(rel, "/"+sandboxlog.Dir, "", 1))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// The logs of all sandboxes together stay below their bound: what is oldest and
// least missed goes first, the current ones never.
func TestTrimLogs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		space uint64
		gone  string
	}{
		{10 * 64 << 10, ""},
		{9 * 64 << 10, "old/1/app.log"},
		{8 * 64 << 10, "old/1/app.log old/1/app.log.1"},
		{6 * 64 << 10, "new/1/app.log new/1/app.log.1 old/1/app.log old/1/app.log.1"},
		{5 * 64 << 10, "new/1/app.log new/1/app.log.1 old/1/app.log old/1/app.log.1 old/2/app.log.1"},
		{1, "new/1/app.log new/1/app.log.1 new/2/app.log.1 old/1/app.log old/1/app.log.1 old/2/app.log.1"},
	} {
		t.Run(fmt.Sprint(c.space), func(t *testing.T) {
			t.Parallel()
			l, dir := manyLogs(t, c.space)
			before := logsLeft(t, dir)
			freed, err := l.Trim()
			if err != nil {
				t.Fatal(err)
			}
			after := logsLeft(t, dir)
			gone := slices.DeleteFunc(slices.Clone(before), func(p string) bool { return slices.Contains(after, p) })
			if got := strings.Join(gone, " "); got != c.gone || freed != uint64(len(gone))*64<<10 {
				t.Errorf("%s are gone (%d bytes), expected %s", got, freed, c.gone)
			}
			if again, err := l.Trim(); again != 0 || err != nil {
				t.Errorf("%d bytes with the second: %v", again, err)
			}
		})
	}
}

// Logs are measured again when they may have grown beyond their bounds, as the disk
// tells, and at the latest after a while.
func TestTrimGrown(t *testing.T) {
	t.Parallel()
	const gib, mib = 1 << 30, 1 << 20
	l, _ := manyLogs(t, 100*mib) // of which they take less than one
	at := time.Now()
	disk := room.Disk{Total: 1000 * gib, Free: 500 * gib, Files: 1e9, FreeFiles: 1e8}
	if !l.mayHaveGrown(disk, at) {
		t.Error("they were never measured")
	}
	if _, err := l.Trim(); err != nil {
		t.Fatal(err)
	}
	if l.measured.headroom < 99*mib || l.measured.headroom > 100*mib {
		t.Errorf("they may grow by %d bytes", l.measured.headroom)
	}
	if _, err := l.trim(nil); err != nil || l.measured.headroom > 100*mib {
		t.Errorf("deleted ones alone: they may grow by %d bytes: %v", l.measured.headroom, err)
	}
	l.KeepDeleted = time.Hour
	for _, c := range []struct {
		what        string
		free, files int64 // less than when they were measured, one after the other
		after       time.Duration
		grown       bool
	}{
		{"nothing happened", 0, 0, 30 * time.Second, false},
		{"a little less is free", 50 * mib, 0, 30 * time.Second, false},
		{"much less is free", 101 * mib, 0, 30 * time.Second, true},
		{"others have freed something", -gib, 0, 30 * time.Second, false},
		{"what was freed is taken", 0, 0, 30 * time.Second, true},
		{"many small files", -gib, 1001, 30 * time.Second, true},
		{"a few", -gib, 999, 30 * time.Second, false},
		{"it was long ago", -gib, 0, 5 * time.Minute, true},
		{"the clock was set back", -gib, 0, -time.Second, true},
		{"the disk is nearly full", 496 * gib, 0, 30 * time.Second, true},
	} {
		if c.what == "nothing happened" {
			l.measured = measured{at: at, headroom: 100 * mib, free: disk.Free, freeFiles: disk.FreeFiles}
		}
		now := disk
		now.Free -= uint64(c.free)
		now.FreeFiles -= uint64(c.files)
		if got := l.mayHaveGrown(now, at.Add(c.after)); got != c.grown {
			t.Errorf("%s: measured again: %v", c.what, got)
		}
	}
	l.KeepDeleted = time.Minute
	if now := (room.Disk{Total: 1000 * gib, Free: 501 * gib, FreeFiles: 1e8}); l.mayHaveGrown(now, at.Add(5*time.Second)) || !l.mayHaveGrown(now, at.Add(6*time.Second)) {
		t.Error("logs of deleted sandboxes are to go a minute after them")
	}
}

// What is no log is removed however much room there is, and keeps no log from
// being counted.
func TestTrimForeign(t *testing.T) {
	t.Parallel()
	l, dir := manyLogs(t, 1<<40)
	before := logsLeft(t, dir)
	at := filepath.Join(dir, "old", sandboxlog.Dir, "2")
	for what, plant := range map[string]func(p string) error{
		"fifo": func(p string) error { return unix.Mkfifo(p, 0o600) },
		"tree": func(p string) error {
			return errors.Join(os.MkdirAll(p+"/a/b", 0o700), os.WriteFile(p+"/a/b/big", make([]byte, 1<<20), 0o600))
		},
		"big\n":      func(p string) error { return os.WriteFile(p, make([]byte, 1<<20), 0o600) },
		"link":       func(p string) error { return os.Symlink("/", p) },
		"gofer.log":  func(p string) error { return os.MkdirAll(p+"/x", 0o700) },
		"gofer.log.": func(p string) error { return os.WriteFile(p, nil, 0o600) },
	} {
		if err := plant(filepath.Join(at, what)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Trim(); err != nil {
		t.Fatal(err)
	}
	if after := logsLeft(t, dir); !slices.Equal(before, after) {
		t.Errorf("%v, expected %v", after, before)
	}
	if es := entries(t, at); len(es) != 3 {
		t.Errorf("%q", es)
	}
}
