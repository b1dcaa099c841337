// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Who holds the lock is known without any file.
func TestLockedBy(t *testing.T) {
	t.Parallel()
	s, err := OpenStore(filepath.Join(t.TempDir(), "s"))
	must(t, err)
	defer s.Close()
	if pid := s.LockedBy(); pid != 0 {
		t.Errorf("pid %d holds what nobody does", pid)
	}
	must(t, s.Lock())
	must(t, os.Remove(filepath.Join(s.Path(), lockFile)))
	if pid := s.LockedBy(); pid != os.Getpid() {
		t.Errorf("pid %d, expected %d", pid, os.Getpid())
	}
	const other = "1: POSIX  ADVISORY  WRITE 7 fd:01:12 0 EOF\n2: FLOCK  ADVISORY  READ 8 fd:01:12 0 EOF\n3: -> FLOCK  ADVISORY  WRITE 9 fd:01:12 0 EOF\n4: FLOCK  ADVISORY  WRITE 10 fd:01:13 0 EOF\n5: FLOCK  ADVISORY  WRITE 0 fd:01:12 0 EOF\nx\n"
	here := func(_ int, dev string) bool { return dev == "fd:01" }
	if pid := lockHolder(other, 12, here); pid != 0 {
		t.Errorf("pid %d", pid)
	}
	if pid := lockHolder(other+"6: FLOCK  ADVISORY  WRITE 11 fd:01:12 0 EOF", 12, here); pid != 11 {
		t.Errorf("pid %d, expected 11", pid)
	}
}

// Where the kernel lists another device than the filesystem tells, the holder is the
// one that has the directory open.
func TestLockedByOpenFile(t *testing.T) {
	t.Parallel()
	dir, err := os.Open(t.TempDir())
	must(t, err)
	defer dir.Close()
	var st unix.Stat_t
	must(t, unix.Fstat(int(dir.Fd()), &st))
	if !hasOpen(os.Getpid(), &st) {
		t.Error("it is not found that this process has it open")
	}
	elsewhere := st
	elsewhere.Dev = ^st.Dev
	// Not the next inode: a test that runs beside this one may have it open.
	var other unix.Stat_t
	must(t, unix.Stat(t.TempDir(), &other))
	if hasOpen(os.Getpid(), &elsewhere) || hasOpen(os.Getpid(), &other) || hasOpen(1<<22+1, &st) {
		t.Error("what is not open is found")
	}
}

// The reserve is part of an eighth of a small disk, and is there for who opens the
// state later.
func TestFillReserve(t *testing.T) {
	t.Parallel()
	p := filepath.Join(t.TempDir(), "s")
	s, err := OpenStore(p)
	must(t, err)
	defer s.Close()
	for range 2 {
		must(t, s.FillReserve())
	}
	slots, err := os.ReadDir(filepath.Join(p, reserveDir))
	if err != nil || len(slots) != reserveSlots {
		t.Fatalf("%v: %v", slots, err)
	}
	must(t, s.Claim("web"))
	must(t, s.Put(sample("web")))
	other, err := OpenStoreReadOnly(p)
	must(t, err)
	defer other.Close()
	if other.reserve == nil {
		t.Error("it is not found")
	}
	for i := range 40 {
		rec := sample("web")
		rec.App().Failures = i
		dir, err := s.Dir("web")
		must(t, err)
		b, err := EncodeRecord(rec)
		must(t, err)
		must(t, s.reserve.Write(dir, RecordFile, b, 0o600))
		dir.Close()
		got, quarantined, err := s.Get("web")
		if err != nil || quarantined != nil || got.App().Failures != i {
			t.Fatal(fmt.Sprint(got, quarantined, err))
		}
	}
}
