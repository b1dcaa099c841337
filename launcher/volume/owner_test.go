// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/setup"
)

func ownerAt(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return fmt.Sprintf("%d:%d %04o", st.Uid, st.Gid, st.Mode&0o7777)
}

// A directory that is made belongs to whom the manifest says, and one that is there is left
// unless the manifest wants it otherwise.
func TestOwnership(t *testing.T) {
	t.Parallel()
	five, six, mode := uint32(5), uint32(6), desired.FileMode("2770")
	ids := &idmap.Maps{
		UIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 70000, Size: 1000}}, GIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 80000, Size: 1000}},
	}
	for name, c := range map[string]struct {
		owner *desired.Ownership
		ids   *idmap.Maps
		sub   string
		there string // owner of what is there, "" if nothing is
		want  map[string]string
	}{
		"nobody says":              {nil, nil, "", "", map[string]string{".": "0:0 0755"}},
		"fresh":                    {&desired.Ownership{UID: &five, GID: &six, Mode: mode}, nil, "", "", map[string]string{".": "5:6 2770"}},
		"fresh, the group":         {&desired.Ownership{GID: &six}, ids, "", "", map[string]string{".": "70000:80006 0755"}},
		"fresh, only a mode":       {&desired.Ownership{Mode: mode}, ids, "", "", map[string]string{".": "70000:80000 2770"}},
		"fresh, a sub path":        {&desired.Ownership{UID: &five, GID: &six}, nil, "a/b", "", map[string]string{".": "0:0 0755", "a": "5:6 0755", "a/b": "5:6 0755"}},
		"fresh, there":             {&desired.Ownership{UID: &five, GID: &six, Mode: mode}, nil, "", "1", map[string]string{".": "1:1 0700", "d/f": "1:1 0640"}},
		"mismatch, nothing there":  {&desired.Ownership{UID: &five, Mode: mode, When: desired.OwnershipMismatch}, nil, "", "", map[string]string{".": "5:0 2770"}},
		"mismatch":                 {&desired.Ownership{UID: &five, GID: &six, Mode: mode, When: desired.OwnershipMismatch}, nil, "", "1", map[string]string{".": "5:6 2770", "d": "5:6 0700", "d/f": "5:6 0640", "link": "5:6 0777", "fifo": "5:6 0600"}},
		"mismatch, the group":      {&desired.Ownership{GID: &six, When: desired.OwnershipMismatch}, nil, "", "1", map[string]string{".": "1:6 0700", "d/f": "1:6 0640"}},
		"mismatch, only the mode":  {&desired.Ownership{Mode: mode, When: desired.OwnershipMismatch}, nil, "", "1", map[string]string{".": "1:1 2770", "d/f": "1:1 0640"}},
		"mismatch, a sub path":     {&desired.Ownership{UID: &five, When: desired.OwnershipMismatch}, nil, "d", "1", map[string]string{".": "1:1 0700", "d": "5:1 0700", "d/f": "5:1 0640", "link": "1:1 0777"}},
		"no mismatch":              {&desired.Ownership{UID: &five, When: desired.OwnershipMismatch}, nil, "", "5", map[string]string{".": "5:5 0700", "other": "9:9 0600"}},
		"a mismatch with its root": {&desired.Ownership{UID: &five, When: desired.OwnershipMismatch}, nil, "", "1", map[string]string{"other": "5:9 0600"}},
	} {
		dir, path := state(t)
		data := filepath.Join(path, "v/data")
		if c.there != "" {
			must(t, os.MkdirAll(data+"/d", 0o700))
			must(t, os.WriteFile(data+"/d/f", nil, 0o640))
			must(t, os.WriteFile(data+"/other", nil, 0o600))
			must(t, os.Symlink("/etc/passwd", data+"/link"))
			must(t, unix.Mkfifo(data+"/fifo", 0o600))
			var id int
			_, err := fmt.Sscan(c.there, &id)
			must(t, err)
			for _, p := range []string{"", "/d", "/d/f", "/link", "/fifo"} {
				must(t, os.Lchown(data+p, id, id))
			}
			must(t, os.Lchown(data+"/other", 9, 9))
		}
		passwd := ownerAt(t, "/etc/passwd")
		st := with(setup.Source{Volume: "v", SubPath: c.sub, Owner: c.owner})
		st.Maps = c.ids
		o, err := start(t, dir, st)
		must(t, err)
		o.Close()
		for p, want := range c.want {
			if got := ownerAt(t, filepath.Join(data, p)); got != want {
				t.Errorf("%s: %s is %s, expected %s", name, p, got, want)
			}
		}
		if now := ownerAt(t, "/etc/passwd"); now != passwd {
			t.Fatalf("%s: a link was followed: %s became %s", name, passwd, now)
		}
	}
}

// Who is nobody on the host can't own anything there, and a retry does not help.
func TestOwnershipUnmapped(t *testing.T) {
	t.Parallel()
	dir, _ := state(t)
	ids := &idmap.Maps{UIDs: []specs.LinuxIDMapping{{HostID: 70000, Size: 10}}, GIDs: []specs.LinuxIDMapping{{HostID: 80000, Size: 10}}}
	many, few := uint32(10), uint32(9)
	for name, c := range map[string]struct {
		owner desired.Ownership
		ids   *idmap.Maps
		ok    bool
	}{
		"mapped":     {desired.Ownership{UID: &few, GID: &few}, ids, true},
		"the user":   {desired.Ownership{UID: &many, GID: &few}, ids, false},
		"the group":  {desired.Ownership{GID: &many}, ids, false},
		"no mapping": {desired.Ownership{UID: &many}, nil, true},
	} {
		st := with(setup.Source{Volume: "v", Owner: &c.owner, Field: "spec.volumes[0].volume"})
		st.Maps = c.ids
		o, err := OpenAll(t.Context(), dir, st, "web")
		if (err == nil) != c.ok || err != nil && !operation.Permanent(err) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			o.Close()
		}
	}
}

// endsAfter is a context that ends when it was asked so often.
type endsAfter struct {
	context.Context
	left int
}

func (e *endsAfter) Err() error {
	if e.left--; e.left < 0 {
		return context.Canceled
	}
	return nil
}

// A change of the owner that was cut short is taken up at the next start: the directory
// itself comes last. Meanwhile it is told how far it is.
func TestOwnershipResumes(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	data := filepath.Join(path, "v/data")
	must(t, os.MkdirAll(data, 0o755))
	for i := range tellEvery + 100 {
		must(t, os.WriteFile(fmt.Sprintf("%s/%06d", data, i), nil, 0o600))
	}
	five := uint32(5)
	st := with(setup.Source{Volume: "v", Owner: &desired.Ownership{UID: &five, When: desired.OwnershipMismatch}})
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	if _, err := OpenAll(&endsAfter{t.Context(), tellEvery + 50}, dir, st, "web"); !errors.Is(err, context.Canceled) {
		t.Fatalf("it was not cut short: %v", err)
	}
	if got := ownerAt(t, data); got != "0:0 0755" {
		t.Errorf("it was cut short, and the directory is %s", got)
	}
	if e, err := s.Look("v"); err != nil || e.Ownership == nil || e.Ownership.Files != tellEvery || e.Ownership.Began.IsZero() {
		t.Errorf("told %+v, %v", e, err)
	}
	o, err := start(t, dir, st)
	must(t, err)
	o.Close()
	for _, p := range []string{"", "/000000", fmt.Sprintf("/%06d", tellEvery+99)} {
		if got := ownerAt(t, data+p); got[:3] != "5:0" {
			t.Errorf("%s is %s", p, got)
		}
	}
	if e, err := s.Look("v"); err != nil || e.Ownership != nil {
		t.Errorf("still told: %+v %v", e, err)
	}
}

// endless is a context that makes one more file whenever it is asked, and ends after some.
type endless struct {
	context.Context
	cancel context.CancelCauseFunc
	dir    string
	left   int
}

var errLate = errors.New("not started in time")

func (e *endless) Err() error {
	if e.left--; e.left < 0 {
		e.cancel(errLate)
	}
	_ = os.WriteFile(fmt.Sprintf("%s/more%d", e.dir, e.left), nil, 0o600)
	return e.Context.Err()
}

// A change of the owner of files without end is over when the time of the start is, and says
// how far it came.
func TestOwnershipBounded(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	data := filepath.Join(path, "v/data")
	must(t, os.MkdirAll(data, 0o755))
	for i := range 3000 {
		must(t, os.WriteFile(fmt.Sprintf("%s/%06d", data, i), nil, 0o600))
	}
	five := uint32(5)
	st := with(setup.Source{Volume: "v", Owner: &desired.Ownership{UID: &five, When: desired.OwnershipMismatch}})
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := OpenAll(&endless{ctx, cancel, data, 2000}, dir, st, "web")
	if !errors.Is(err, errLate) || !strings.Contains(err.Error(), "files, which the next start passes over") {
		t.Errorf("%v", err)
	}
}

// A tree that a sandbox has made to take without end is refused, and not followed down.
func TestWalkTooDeep(t *testing.T) {
	t.Parallel()
	dir, path := state(t)
	at, err := os.Open(filepath.Dir(path))
	must(t, err)
	must(t, os.MkdirAll(path+"/v/data", 0o755))
	deep, err := openDir(at, "volumes/v/data", unix.O_RDONLY)
	must(t, err)
	name := strings.Repeat("\x1b[31mlong", 20) // a sandbox chooses what is in errors
	for range maxDepth + 10 {
		must(t, unix.Mkdirat(int(deep.Fd()), name, 0o755))
		next, err := openDir(deep, name, unix.O_RDONLY)
		must(t, err)
		deep.Close()
		deep = next
	}
	deep.Close()
	five := uint32(5)
	_, err = start(t, dir, with(setup.Source{Volume: "v", Owner: &desired.Ownership{UID: &five, When: desired.OwnershipMismatch}}))
	if !errors.Is(err, errTooDeep) || len(err.Error()) > 500 || strings.ContainsRune(err.Error(), 0x1b) {
		t.Errorf("%v", err)
	}
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	if u, err := s.Usage(t.Context(), "v"); err != nil || !u.Partial || u.Files < maxDepth {
		t.Errorf("%+v, %v", u, err)
	}
}
