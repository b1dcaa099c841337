// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/invariants"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/volume"
)

// volumePoints are the crash points that no daemon passes: TestCrashVolumes kills the verbs
// there.
var volumePoints = []string{"volume-entry", "volume-write", "volume-sync", "backup-entry"}

// volumeScenario is a verb that is killed: before is what there is, after looks at what there
// may be when it was killed, and again at what there is when it was called again.
type volumeScenario struct {
	name   string
	before func(w *volumeWorld)
	verb   []string
	after  func(w *volumeWorld)
	again  func(w *volumeWorld, out string, err error)
}

// volumeWorld is a state directory with a volume, "data", and an archive of it.
type volumeWorld struct {
	*testing.T
	bin, dir string
}

func newVolumeWorld(t *testing.T, bin string) *volumeWorld {
	t.Helper()
	w := &volumeWorld{t, bin, t.TempDir()}
	must(t, os.MkdirAll(w.dir+"/tree/sub/deep", 0o755))
	must(t, os.MkdirAll(w.dir+"/out", 0o755))
	must(t, os.MkdirAll(w.dir+"/m", 0o755)) // or verbs warn that not all sandboxes are known
	must(t, os.WriteFile(w.dir+"/tree/sub/large", []byte(strings.Repeat("0123456789", 5000)), 0o640))
	must(t, os.Link(w.dir+"/tree/sub/large", w.dir+"/tree/again"))
	must(t, os.Symlink("sub/large", w.dir+"/tree/link"))
	must(t, unix.Mkfifo(w.dir+"/tree/sub/deep/fifo", 0o600))
	must(t, os.WriteFile(w.dir+"/out/old.tar", []byte("the one before"), 0o600))
	archive, err := os.Create(w.dir + "/data.tar")
	must(t, err)
	tw := tar.NewWriter(archive)
	must(t, filepath.WalkDir(w.dir+"/tree", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target, _ := os.Readlink(p)
		h, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(w.dir+"/tree", p); err != nil {
			return err
		}
		if err := tw.WriteHeader(h); err != nil || h.Size == 0 {
			return err
		}
		b, err := os.ReadFile(p)
		if err == nil {
			_, err = tw.Write(b)
		}
		return err
	}))
	must(t, errors.Join(tw.Close(), archive.Close()))
	w.do("restore", "data", w.dir+"/data.tar")
	return w
}

func (w *volumeWorld) run(plan string, verb ...string) (string, error) {
	w.Helper()
	var args []string
	for _, a := range verb {
		args = append(args, strings.ReplaceAll(a, "DIR", w.dir))
	}
	return runArmed(w.T, w.bin, w.dir, plan, append([]string{"volume"}, args...)...)
}

// do runs a verb that succeeds.
func (w *volumeWorld) do(verb ...string) string {
	w.Helper()
	out, err := w.run("", verb...)
	if err != nil {
		w.Fatalf("%v: %v\n%s", verb, err, out)
	}
	return out
}

// content is what a tree holds.
func (w *volumeWorld) content(top string) string {
	w.Helper()
	var out []string
	must(w.T, filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, p)
		target, _ := os.Readlink(p)
		var b []byte
		if info.Mode().IsRegular() {
			if b, err = os.ReadFile(p); err != nil {
				return err
			}
		}
		out = append(out, rel+" "+info.Mode().String()+" "+target+" "+string(b))
		return nil
	}))
	return strings.Join(out, "\n")
}

// whole says whether a volume is there, which it may be as a whole only.
func (w *volumeWorld) whole(name string) bool {
	w.Helper()
	var list []struct{ Name, Problem string }
	must(w.T, json.Unmarshal([]byte(w.do("ls", "-o", "json")), &list))
	for _, e := range list {
		if e.Name != name {
			continue
		}
		if e.Problem != "" {
			return false
		}
		if got, want := w.content(w.dir+"/s/volumes/"+name+"/data"), w.content(w.dir+"/tree"); got != want {
			w.Errorf("%s holds\n%.500q\nexpected\n%.500q", name, got, want)
		}
		return true
	}
	return false
}

// backedUp says whether the file of a backup is there, which it may be as a whole only.
func (w *volumeWorld) backedUp(name string) bool {
	w.Helper()
	f, err := os.Open(w.dir + "/out/" + name)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	must(w.T, err)
	defer f.Close()
	if first, _ := io.ReadAll(io.LimitReader(f, 20)); string(first) == "the one before" {
		return false
	}
	out, err := w.run("", "restore", "copy-of-backup", f.Name())
	if err != nil {
		w.Errorf("half a backup under its name: %v\n%s", err, out)
		return false
	}
	w.whole("copy-of-backup")
	w.do("rm", "copy-of-backup")
	return true
}

var volumeScenarios = []volumeScenario{
	{
		name: "restore", verb: []string{"restore", "copy", "DIR/data.tar"},
		after: func(w *volumeWorld) { w.whole("copy") },
		again: func(w *volumeWorld, out string, err error) {
			if err != nil && !strings.Contains(out, "there is a volume of this name") {
				w.Errorf("again: %v\n%s", err, out)
			}
			if !w.whole("copy") {
				w.Error("it is not there")
			}
		},
	},
	{
		name: "restore over half of one", verb: []string{"restore", "copy", "DIR/data.tar"},
		before: func(w *volumeWorld) {
			if out, err := w.run("after volume-entry 3", "restore", "copy", "DIR/data.tar"); err == nil {
				w.Fatalf("it was not killed: %s", out)
			}
		},
		after: func(w *volumeWorld) { w.whole("copy") },
		again: func(w *volumeWorld, out string, err error) {
			if err != nil && !strings.Contains(out, "there is a volume of this name") {
				w.Errorf("again: %v\n%s", err, out)
			}
			if !w.whole("copy") {
				w.Error("it is not there")
			}
		},
	},
	{
		name: "backup", verb: []string{"backup", "data", "DIR/out/new.tar"},
		after: func(w *volumeWorld) { w.backedUp("new.tar") },
		again: func(w *volumeWorld, out string, err error) {
			if err != nil || !w.backedUp("new.tar") {
				w.Errorf("again: %v\n%s", err, out)
			}
		},
	},
	{
		name: "backup over another", verb: []string{"backup", "data", "DIR/out/old.tar"},
		after: func(w *volumeWorld) {
			if _, err := os.Stat(w.dir + "/out/old.tar"); err != nil {
				w.Errorf("the backup before is gone: %v", err)
			}
			w.backedUp("old.tar")
		},
		again: func(w *volumeWorld, out string, err error) {
			if err != nil || !w.backedUp("old.tar") {
				w.Errorf("again: %v\n%s", err, out)
			}
		},
	},
	{
		name: "rm", verb: []string{"rm", "data"},
		after: func(w *volumeWorld) { w.whole("data") },
		again: func(w *volumeWorld, out string, err error) {
			if err != nil && !strings.Contains(out, "there is no such volume") || w.whole("data") {
				w.Errorf("again: %v\n%s", err, out)
			}
		},
	},
}

// Every moment of a verb for volumes is one at which it may be killed. A volume and a backup
// are whole or not there, the verb can be called again, a sandbox can be started, and what is
// left goes.
func TestCrashVolumes(t *testing.T) {
	t.Parallel()
	bin, err := crashable()
	must(t, err)
	points := map[string]bool{}
	for _, s := range volumeScenarios {
		w := newVolumeWorld(t, bin)
		if s.before != nil {
			s.before(w)
		}
		w.do(s.verb...)
		for _, m := range firstAndLast(t, w.dir) {
			points[m.point] = true
			t.Run(s.name+" "+m.String(), func(t *testing.T) {
				t.Parallel()
				s.killed(newVolumeWorld(t, bin), m)
			})
		}
	}
	for _, p := range append([]string{"file-rename", "pending-create", "pending-sync", "pending-rename", "volume-make", "volume-data", "volume-trash"}, volumePoints...) {
		if !points[p] {
			t.Errorf("no verb passes %s", p)
		}
	}
}

func (s *volumeScenario) killed(w *volumeWorld, m moment) {
	w.Helper()
	if s.before != nil {
		s.before(w)
	}
	if out, err := w.run(m.String(), s.verb...); err == nil {
		w.Fatalf("it was not killed: %s", out)
	}
	s.after(w)
	if strings.HasPrefix(s.name, "restore") && m.when == "after" {
		w.start("copy") // no daemon has looked at it before
	} else {
		out, err := w.run("", s.verb...)
		s.again(w, out, err)
		left, err := filepath.Glob(w.dir + "/out/.*")
		must(w.T, err)
		if len(left) > 0 {
			w.Errorf("left beside the backup: %v", left)
		}
	}
	w.swept()
}

// start opens a volume as a start does: it is whole or new.
func (w *volumeWorld) start(name string) {
	w.Helper()
	was := w.whole(name)
	state, err := actual.OpenStore(w.dir + "/s")
	must(w.T, err)
	defer state.Close()
	st := &setup.Setup{Containers: []setup.Container{{Volumes: []setup.Source{{Volume: name}}}}}
	o, err := volume.OpenAll(w.Context(), state.RootDir(), st, "web")
	must(w.T, err)
	o.Close()
	names, err := os.ReadDir(w.dir + "/s/volumes/" + name + "/data")
	must(w.T, err)
	if !was && len(names) > 0 {
		w.Errorf("a sandbox gets half of a volume: %v", names)
	}
}

// swept does what a daemon does when it starts and later, after which nothing is left.
func (w *volumeWorld) swept() {
	w.Helper()
	state, err := actual.OpenStore(w.dir + "/s")
	must(w.T, err)
	defer state.Close()
	must(w.T, state.Lock())
	_, err = state.SweepTemps()
	must(w.T, err)
	must(w.T, volume.Sweep(context.Background(), state.RootDir()))
	sweepAll(w.T, state)
	found, err := invariants.Check(context.Background(), state, invariants.Options{Settled: true})
	must(w.T, err)
	must(w.T, invariants.Err(found))
	volumes, err := os.ReadDir(w.dir + "/s/volumes")
	must(w.T, err)
	for _, v := range volumes {
		inside, err := os.ReadDir(w.dir + "/s/volumes/" + v.Name())
		must(w.T, err)
		var names []string
		for _, e := range inside {
			names = append(names, e.Name())
		}
		if !slices.Equal(names, []string{"data", "meta.json"}) {
			w.Errorf("the volume %s has %v", v.Name(), names)
		}
	}
}
