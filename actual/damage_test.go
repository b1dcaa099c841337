// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/hosttest"
)

// realRecord is the record of a running sandbox as the program wrote it.
func realRecord(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/real.json")
	must(t, err)
	if r, err := DecodeRecord(b); err != nil || r.Phase != PhaseRunning || r.Sentry == nil || len(r.Cgroups) == 0 {
		t.Fatalf("testdata/real.json is not the record of a running sandbox: %+v %v", r, err)
	}
	// Version 2 had both in one field.
	r, err := DecodeRecord(b)
	must(t, err)
	const version = "v0.0.0-20260905035102-160fafc42237"
	if r.SentryBinary != "/opt/sandboxctl/sandboxctl-sentry" || r.GVisor != version || r.Runtime() != "/opt/sandboxctl/sandboxctl-sentry (gVisor "+version+")" {
		t.Fatalf("sentry %q, version %q: %s", r.SentryBinary, r.GVisor, r.Runtime())
	}
	return b
}

// Every truncation and every flipped bit of a record is noticed: of one with
// every field set, and of a real one.
func TestRecordDamage(t *testing.T) {
	t.Parallel()
	all, err := EncodeRecord(sample("web"))
	must(t, err)
	tried := 0
	for what, good := range map[string][]byte{"all fields": all, "real": realRecord(t)} {
		for n := range good {
			tried++
			if _, err := DecodeRecord(good[:n]); err == nil {
				t.Fatalf("%s: cut to %d bytes it is taken for whole", what, n)
			}
		}
		bad := bytes.Clone(good)
		for i := range good {
			for bit := range 8 {
				tried++
				bad[i] ^= 1 << bit
				if _, err := DecodeRecord(bad); err == nil {
					t.Fatalf("%s: bit %d of byte %d flipped is not noticed", what, bit, i)
				}
				bad[i] ^= 1 << bit
			}
		}
		if _, err := DecodeRecord(append(bytes.Clone(good), good...)); err == nil {
			t.Errorf("%s: two records in one file are taken for one", what)
		}
	}
	t.Logf("%d damaged records", tried)
}

// A bad record is quarantined, and hides no other; nothing of it is written to.
func TestStoreHolds(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	put(t, s, sample("good"))
	instead := func(make func(p string) error) func(string) error {
		return func(p string) error { return errors.Join(os.Remove(p), make(p)) }
	}
	cases := map[string]func(path string) error{
		"empty":    func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"cut":      func(p string) error { return os.Truncate(p, 40) },
		"missing":  os.Remove,
		"symlink":  instead(func(p string) error { return os.Symlink("/etc/passwd", p) }),
		"dangling": instead(func(p string) error { return os.Symlink("nowhere", p) }),
		"loop":     instead(func(p string) error { return os.Symlink(RecordFile, p) }),
		"fifo":     instead(func(p string) error { return unix.Mkfifo(p, 0o600) }),
		"dir":      instead(func(p string) error { return os.Mkdir(p, 0o700) }),
		"socket": instead(func(p string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			d, err := os.Open(filepath.Dir(p)) // sun_path holds 108 bytes
			if err != nil {
				return err
			}
			defer d.Close()
			return unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), RecordFile)})
		}),
		"huge":   func(p string) error { return os.Truncate(p, 1<<30) },
		"big":    func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("x"), MaxRecord+1), 0o600) },
		"shared": func(p string) error { return os.Chmod(p, 0o666) },
		"linked": func(p string) error { return os.Link(p, p+".other") },
		"foreign": func(p string) error {
			b, err := EncodeRecord(sample("somebody-else"))
			return errors.Join(err, os.WriteFile(p, b, 0o600))
		},
	}
	if os.Geteuid() == 0 {
		cases["owner"] = func(p string) error { return os.Chown(p, 65534, 65534) }
		cases["device"] = instead(func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) })
		cases["whiteout"] = instead(func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(0, 0))) })
	}
	for name, damage := range cases {
		put(t, s, sample(name))
		// As a sandbox that runs has them.
		must(t, s.PutCopy(sample(name)))
		must(t, damage(metaPath(s, name)))
	}
	must(t, os.WriteFile(filepath.Join(s.Path(), SandboxesDir, "Not.A.Sandbox"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(s.Path(), SandboxesDir, "a-file"), nil, 0o600))
	must(t, os.Symlink("good", filepath.Join(s.Path(), SandboxesDir, "a-link")))
	must(t, s.Claim("aborted"))
	must(t, s.Claim("torn"))
	must(t, os.WriteFile(filepath.Join(s.Path(), SandboxesDir, "torn", atomicfile.TempPrefix+"1"), nil, 0o600))
	l, err := s.List()
	must(t, err)
	if len(l.Records) != 1 || l.Records[0].Name != "good" {
		t.Errorf("records %v, expected the good one", l.Records)
	}
	if len(l.Quarantined) != len(cases)+3 {
		t.Errorf("quarantined %v, expected %d", l.Quarantined, len(cases)+3)
	}
	for _, h := range l.Quarantined {
		want := QuarantinedCorrupt
		switch h.Name {
		case "Not.A.Sandbox":
			want = QuarantinedForeign
		case "a-file", "a-link":
			want = QuarantinedUnreadable
		}
		if h.Reason != want || h.Message == "" {
			t.Errorf("%s: %s %q, expected %s", h.Name, h.Reason, h.Message, want)
		}
		if err := s.Claim(h.Name); err == nil {
			t.Errorf("%s: a second sandbox of the name would be made", h.Name)
		}
		if lock, err := s.ClaimLocked(h.Name); err == nil {
			t.Errorf("%s: a second container of the name would be made", h.Name)
			must(t, lock.Release())
		}
	}
	if strings.Join(l.Aborted, " ") != "aborted torn" {
		t.Errorf("aborted %v", l.Aborted)
	}
	// Mended, it is itself again: nothing was cached or rewritten.
	put(t, s, sample("empty"))
	if r, h, err := s.Get("empty"); err != nil || h != nil || r == nil {
		t.Errorf("mended: %v %v %v", r, h, err)
	}
}

// onThread runs f on a thread of its own, which ends with it: what f changes of
// the thread is nobody else's.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// What the system refuses to read is quarantined only for as long as it refuses.
func TestStoreUnreadable(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "another user, and mounting, need root")
	for name, refused := range map[string]func(path string, look func(again bool)) error{
		"EACCES": func(path string, look func(again bool)) error {
			dir := filepath.Dir(path)
			for _, d := range []string{dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
				if err := os.Chmod(d, 0o755); err != nil {
					return err
				}
			}
			// The file system sees another user, without root's rights.
			if err := unix.Setfsuid(65534); err != nil {
				return err
			}
			look(false)
			return unix.Setfsuid(0)
		},
		"EIO": func(path string, look func(again bool)) error {
			if err := errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")); err != nil {
				return err
			}
			// Nothing is mapped at address 0: reading there is an I/O error.
			if err := unix.Mount("/proc/self/mem", path, "", unix.MS_BIND, ""); err != nil {
				return err
			}
			look(true)
			// A child that another test is starting may have a copy of the descriptor.
			return unix.Unmount(path, unix.MNT_DETACH)
		},
	} {
		s := newStore(t)
		put(t, s, sample("web"))
		onThread(func() {
			err := refused(metaPath(s, "web"), func(again bool) {
				if again {
					// Descriptors see the mounts of the namespace they are of.
					var err error
					if s, err = OpenStore(s.Path()); err != nil {
						t.Error(err)
						return
					}
					t.Cleanup(func() { s.Close() })
				}
				for range 2 {
					_, quarantined, err := s.Get("web")
					if err != nil || quarantined == nil || quarantined.Reason != QuarantinedUnreadable {
						t.Errorf("%s: %+v %v, expected it to be quarantined as unreadable", name, quarantined, err)
					}
				}
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if r, quarantined, err := s.Get("web"); err != nil || quarantined != nil || r == nil {
				t.Errorf("%s is over: %+v %+v %v, expected the record", name, r, quarantined, err)
			}
		})
	}
}

// A record is set aside whatever it is, and nothing else is; what was set aside
// is kept, and the name stays quarantined until it has a record again.
func TestSetRecordAside(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	rec := sample("web")
	put(t, s, rec)
	must(t, s.PutCopy(rec))
	must(t, os.WriteFile(metaPath(s, "web"), []byte("damage"), 0o600))
	kept, err := s.SetRecordAside("web")
	must(t, err)
	if b, err := os.ReadFile(kept); err != nil || string(b) != "damage" {
		t.Errorf("kept: %q %v", b, err)
	}
	if _, quarantined, err := s.Get("web"); err != nil || quarantined == nil {
		t.Errorf("without a record, beside a copy: %v %v, expected it to be quarantined", quarantined, err)
	}
	if again, err := s.SetRecordAside("web"); err != nil || again != "" {
		t.Errorf("a second time: %q %v", again, err)
	}
	back, err := s.Copy("web")
	must(t, err)
	must(t, s.Put(back))
	if r, quarantined, err := s.Get("web"); err != nil || quarantined != nil || r.UID != rec.UID {
		t.Errorf("put back: %v %v %v", r, quarantined, err)
	}
	must(t, os.Remove(metaPath(s, "web")))
	must(t, os.Mkdir(metaPath(s, "web"), 0o700))
	if _, err := s.SetRecordAside("web"); err != nil {
		t.Error(err)
	}
	dir, err := s.SetAside("web")
	must(t, err)
	if _, err := os.Stat(filepath.Join(dir, copyFile)); err != nil {
		t.Error(err)
	}
	must(t, s.Claim("web"))
	entries, err := os.ReadDir(filepath.Join(s.Path(), damagedDir))
	if err != nil || len(entries) != 3 {
		t.Errorf("kept: %v %v, expected 3", entries, err)
	}
	_, err = s.SweepTrash()
	must(t, err)
	if again, err := s.SetAside("gone"); err != nil || again != "" {
		t.Errorf("what is not there: %q %v", again, err)
	}
	// A copy is checked as a record is.
	must(t, s.PutCopy(sample("web")))
	must(t, os.Truncate(filepath.Join(s.Path(), SandboxesDir, "web", copyFile), 40))
	if _, err := s.Copy("web"); err == nil {
		t.Error("half a copy is taken for one")
	}
	for range 2 {
		must(t, s.DropCopy("web"))
	}
	if _, err := s.Copy("web"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("dropped: %v", err)
	}
	if _, err := s.Copy("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
