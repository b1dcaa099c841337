// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/gofer"
)

// shown is what a sandbox is shown, and where.
type shownNames struct {
	*world
	dir string
}

func (w *world) showNames(rec *actual.Record) *shownNames {
	w.t.Helper()
	dir, err := w.k.ShowNames(rec)
	if err != nil {
		w.t.Fatal(err)
	}
	dir.Close()
	return &shownNames{w, filepath.Join(w.k.store.Path(), actual.SandboxesDir, rec.Name, gofer.NamesDir)}
}

// says expects lines in the file, and others not.
func (s *shownNames) says(lines []string, not ...string) {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, hostsFile))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range lines {
		if !strings.Contains(string(b), "\n"+l+"\n") {
			s.t.Errorf("no line %q in\n%s", l, b)
		}
	}
	for _, n := range not {
		if strings.Contains(string(b), n) {
			s.t.Errorf("%q in\n%s", n, b)
		}
	}
}

// at is a record of a sandbox with an address.
func (w *world) at(name, address string) *actual.Record {
	w.t.Helper()
	if err := w.k.store.Claim(name); err != nil {
		w.t.Fatal(err)
	}
	rec := actual.NextAttempt(nil, actual.Intent{Name: name, UID: actual.NewUID(), Spec: []byte(`{"spec":{"hostname":"Box-` + name + `"}}`)}, time.Now())
	a := netip.MustParseAddr(address)
	rec.Attachments = []actual.Attachment{{Network: "front", Link: "sb" + name, Interface: "eth0", Subnet4: netip.PrefixFrom(a, 24).Masked(), Address4: a, MTU: 1500}}
	w.put(rec)
	return rec
}

func (w *world) put(rec *actual.Record) {
	w.t.Helper()
	if err := w.k.store.Put(rec); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) gone(name string) {
	w.t.Helper()
	if err := w.k.store.Remove(name); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) renew(look bool) {
	w.t.Helper()
	w.k.took = 0 // without the pause
	if err := w.k.renewNames(look); err != nil {
		w.t.Fatal(err)
	}
}

// The files follow records and manifests, and are repaired.
func TestHostsFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.showNames(w.at("web", "10.0.0.5"))
	web.says([]string{"10.0.0.5 web.front.internal web web.front box-web"}, "db")
	info, err := os.Stat(web.dir)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	db := w.at("db", "10.0.0.6") // it has no directory: its root is of somebody else
	w.renew(false)
	web.says([]string{"10.0.0.6 db.front.internal db db.front"})

	w.k.said = map[string]*networks.Network{"db": {Aliases: []string{"pg"}}, "web": {ExtraHosts: []networks.ExtraHost{{IP: "10.9.9.9", Names: []string{"registry"}}}}}
	w.renew(false)
	web.says([]string{"10.0.0.6 db.front.internal db db.front pg", "10.9.9.9 registry"})

	// Nothing is written where nothing has changed; somebody's own file is replaced later.
	file := filepath.Join(web.dir, hostsFile)
	if err := os.WriteFile(file, []byte("10.0.0.6 evil\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.renew(false)
	if b, err := os.ReadFile(file); err != nil || string(b) != "10.0.0.6 evil\n" {
		t.Errorf("%q, %v", b, err)
	}
	w.renew(true)
	web.says([]string{"10.0.0.6 db.front.internal db db.front pg"}, "evil")

	// One that is stopped has no name.
	db.Phase = actual.PhaseStopped
	w.put(db)
	w.renew(false)
	web.says(nil, "db")

	// Nothing is left of a daemon that was killed.
	temp := filepath.Join(web.dir, atomicfile.TempPrefix+"0011")
	if err := os.WriteFile(temp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(w.k.store, lookEvery, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(temp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a temporary file is left: %v", err)
	}
}

// Before an address leads to another sandbox, no file says that it is the one of before.
func TestHostsReused(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "mounting a small disk needs root")
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	w := newWorldAt(t, disk)
	web := w.showNames(w.at("web", "10.0.0.5"))
	w.at("db", "10.0.0.6")
	w.renew(false)
	if err := w.k.correctNames(); err != nil {
		t.Fatal(err)
	}
	web.says([]string{"10.0.0.6 db.front.internal db db.front"})
	w.gone("db")
	w.at("thief", "10.0.0.6")
	if err := w.k.correctNames(); err != nil {
		t.Fatal(err)
	}
	web.says([]string{"10.0.0.6 thief.front.internal thief thief.front"}, "db")

	// Where there is no room, there is no file, until there is room.
	w.gone("thief")
	w.at("next", "10.0.0.6")
	fill := filepath.Join(w.k.store.Path(), "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := w.k.correctNames(); err != nil {
		t.Errorf("no address is given: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(web.dir, hostsFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not right any more: %s, %v", b, err)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	w.renew(false)
	web.says([]string{"10.0.0.6 next.front.internal next next.front"}, "thief")
}

// Who had an address is forgotten when no file says it any more: the next one that has it is
// started without a look at all files.
func TestOwnersForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web, bad := w.showNames(w.at("web", "10.0.0.5")), w.showNames(w.at("bad", "10.0.0.4"))
	w.at("db", "10.0.0.6")
	correct := func() {
		t.Helper()
		if err := w.k.correctNames(); err != nil {
			t.Fatal(err)
		}
	}
	correct()
	w.renew(false)
	w.gone("db")
	has := func(want string) {
		t.Helper()
		if got := w.k.owners[netip.MustParseAddr("10.0.0.6")]; got != want || len(w.k.owners) < 2 {
			t.Errorf("10.0.0.6 is said to be of %q, expected %q; of all: %v", got, want, w.k.owners)
		}
	}
	// One file may still say it.
	if err := errors.Join(os.RemoveAll(bad.dir), os.WriteFile(bad.dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	w.renew(false)
	has("db")
	if err := errors.Join(os.Remove(bad.dir), os.Mkdir(bad.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	w.renew(true)
	has("")
	web.says([]string{"10.0.0.4 bad.front.internal bad bad.front"}, "db")
	w.at("next", "10.0.0.6")
	correct()
	has("next")
}

// A directory of names that is damaged is a matter of its own sandbox: others are started, get
// addresses that were somebody else's, and see the names of all.
func TestHostsDamaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good, bad := w.showNames(w.at("good", "10.0.0.5")), w.showNames(w.at("bad", "10.0.0.6"))
	w.at("db", "10.0.0.7")
	w.renew(false)
	if err := w.k.correctNames(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(bad.dir), os.WriteFile(bad.dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	w.gone("db")
	next := w.at("next", "10.0.0.7")
	if err := w.k.correctNames(); err != nil {
		t.Errorf("all starts wait for one directory: %v", err)
	}
	good.says([]string{"10.0.0.7 next.front.internal next next.front"}, "db")
	w.showNames(next).says([]string{"10.0.0.5 good.front.internal good good.front"})
	if err := w.k.misleads("good"); err != nil {
		t.Errorf("good is not started: %v", err)
	}
	if err := w.k.misleads("bad"); err == nil {
		t.Error("bad is started with names that are not right")
	}
	w.renew(true)
	if err := w.k.misleads("bad"); err == nil {
		t.Error("bad is started after another look")
	}
	// Repaired, it is found to be in order.
	if err := errors.Join(os.Remove(bad.dir), os.Mkdir(bad.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	w.renew(true)
	if err := w.k.misleads("bad"); err != nil {
		t.Error(err)
	}
	bad.says([]string{"10.0.0.7 next.front.internal next next.front"}, "db")
}
