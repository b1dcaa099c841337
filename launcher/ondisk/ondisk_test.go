// SPDX-License-Identifier: Apache-2.0

package ondisk

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
)

const mib = 1 << 20

func store(t *testing.T) *actual.Store {
	t.Helper()
	s, err := actual.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// self is this process, as the sentry of a record.
func self(t *testing.T) *process.Identity {
	t.Helper()
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	id, err := process.Identify(fd, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return &id
}

// What sandboxes may still write is what they were promised, without what they have
// written. One whose sentry is gone writes nothing more, and of one that can't be seen all
// counts.
func TestLeft(t *testing.T) {
	t.Parallel()
	f, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 3*mib); err != nil {
		t.Fatal(err)
	}
	fd := int(f.Fd())
	dead := *self(t)
	dead.StartTime++
	dead.Inode++
	of := func(name string, sentry *process.Identity, places ...actual.OnDisk) *actual.Record {
		return &actual.Record{Name: name, Sentry: sentry, OnDisk: places}
	}
	for name, c := range map[string]struct {
		records []*actual.Record
		want    int64
	}{
		"none":           {nil, 0},
		"not asked":      {[]*actual.Record{of("a", self(t))}, 0},
		"some written":   {[]*actual.Record{of("a", self(t), actual.OnDisk{Size: 10 * mib, FD: fd})}, 7 * mib},
		"all written":    {[]*actual.Record{of("a", self(t), actual.OnDisk{Size: 2 * mib, FD: fd})}, 0},
		"two places":     {[]*actual.Record{of("a", self(t), actual.OnDisk{Size: 2 * mib, FD: fd}, actual.OnDisk{Size: 4 * mib, FD: fd})}, mib},
		"two sandboxes":  {[]*actual.Record{of("a", self(t), actual.OnDisk{Size: 5 * mib, FD: fd}), of("b", self(t), actual.OnDisk{Size: 4 * mib, FD: fd})}, 3 * mib},
		"itself":         {[]*actual.Record{of("me", self(t), actual.OnDisk{Size: 5 * mib, FD: fd})}, 0},
		"ended":          {[]*actual.Record{of("a", &dead, actual.OnDisk{Size: 5 * mib, FD: fd}), of("b", nil, actual.OnDisk{Size: 5 * mib, FD: fd})}, 0},
		"not to be seen": {[]*actual.Record{of("a", self(t), actual.OnDisk{Size: 5 * mib, FD: 1 << 20})}, 5 * mib},
	} {
		if got := Left(c.records, "me"); got != c.want {
			t.Errorf("%s: %d, expected %d", name, got, c.want)
		}
	}
}

// Sandboxes that start at once are not promised the same room, and what one was promised
// is free again when it is over.
func TestPromiseTogether(t *testing.T) {
	t.Parallel()
	s := store(t)
	disk, err := s.Disk()
	if err != nil {
		t.Fatal(err)
	}
	third := []actual.OnDisk{{Size: int64(disk.Free-disk.LeastFreeForLogs()) / 5 * 2}}
	var l Ledger
	var promised, refused atomic.Int32
	var wg sync.WaitGroup
	kept := make(chan func(), 9)
	for i := range 9 {
		wg.Go(func() {
			done, err := l.Promise(s, string(rune('a'+i)), third)
			if err != nil {
				refused.Add(1)
				return
			}
			promised.Add(1)
			kept <- done
		})
	}
	wg.Wait()
	if promised.Load() != 2 || refused.Load() != 7 {
		t.Errorf("%d were promised two fifths of the room, %d refused", promised.Load(), refused.Load())
	}
	if _, err := l.Promise(s, "none", nil); err != nil {
		t.Errorf("what writes nothing there is refused: %v", err)
	}
	close(kept)
	for done := range kept {
		done()
	}
	if done, err := l.Promise(s, "z", third); err != nil {
		t.Error(err)
	} else {
		done()
	}
	if _, err := Used(&actual.Record{OnDisk: third}); !errors.Is(err, process.ErrGone) {
		t.Errorf("without a sentry: %v", err)
	}
}

// A sandbox whose record can't be read runs on, and writes on: what it was promised is in the
// second copy of its record.
func TestPromiseQuarantined(t *testing.T) {
	t.Parallel()
	s := store(t)
	if err := s.Lock(); err != nil {
		t.Fatal(err)
	}
	disk, err := s.Disk()
	if err != nil {
		t.Fatal(err)
	}
	places := []actual.OnDisk{{Size: int64(disk.Free-disk.LeastFreeForLogs()) / 5 * 3, FD: 1 << 20}}
	if err := s.Claim("broken"); err != nil {
		t.Fatal(err)
	}
	rec := &actual.Record{
		Version: actual.RecordVersion, Name: "broken", UID: actual.NewUID(), Attempt: 1, Generation: 1, Phase: actual.PhaseRunning, BootID: "b",
		CreatedAt: time.Now(), Sentry: self(t), Gofer: self(t), Containers: []actual.Container{{Name: actual.AppName}}, OnDisk: places,
	}
	for _, put := range []func(*actual.Record) error{s.Put, s.PutCopy} {
		if err := put(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.Path()+"/sandboxes/broken/meta.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list.Quarantined) != 1 {
		t.Fatalf("%+v %v", list, err)
	}
	var l Ledger
	if _, err := l.Promise(s, "web", places); !operation.PreconditionFailed(err) {
		t.Errorf("the room is promised twice: %v", err)
	}
}
