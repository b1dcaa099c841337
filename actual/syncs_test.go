// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"sandboxctl.dev/actual/fsys"
)

// syncs counts what is forced to disk.
type syncs struct {
	fsys.Dir
	n *int
}

func (d syncs) OpenDir(name string) (fsys.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
	return syncs{sub, d.n}, err
}

func (d syncs) Create(name string, mode fs.FileMode) (fsys.File, error) {
	f, err := d.Dir.Create(name, mode)
	return syncedFile{f, d.n}, err
}

func (d syncs) Rename(name string, to fsys.Dir, as string, flags uint) error {
	return d.Dir.Rename(name, to.(syncs).Dir, as, flags)
}

func (d syncs) Sync() error { *d.n++; return d.Dir.Sync() }

type syncedFile struct {
	fsys.File
	n *int
}

func (f syncedFile) Sync() error { *f.n++; return f.File.Sync() }

// What must survive a power cut is forced to disk, and nothing else: a start waits for
// each of these, longer on most disks than for anything else that the daemon does.
func TestSyncs(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	must(t, os.Chmod(path, 0o700))
	root, err := os.Open(path)
	must(t, err)
	completed := sample("web")
	completed.Phase = PhaseStopping
	completed.Ending = &Ending{Reason: ReasonExited, Containers: []ContainerEnding{{Name: AppName, Completed: true, Exit: &Exit{Known: true}}}}
	n := 0
	s, err := OpenSimulated(syncs{fsys.Of(root), &n}, path)
	must(t, err)
	defer s.Close()
	for _, c := range []struct {
		what string
		do   func() error
		want int
	}{
		{"a name", func() error { return s.Claim("web") }, 1},
		{"an intent", func() error { return s.Put(sample("web")) }, 2},
		{"what is built", func() error { return s.PutSetup("web", []byte("{}")) }, 0},
		{"processes", func() error { return s.Put(sample("web")) }, 2},
		// A power cut ends the sandbox as well. What it leaves must be whole, no more.
		{"an intent to stop", func() error { return s.PutIntent(sample("web")) }, 1},
		// Nothing else on disk tells that a job has completed: it would run again.
		{"an intent that says how it ended", func() error { return s.PutIntent(completed) }, 2},
		{"a stop", func() error { return s.PutUrgent(sample("web")) }, 2},
		{"a removal", func() error { return s.Remove("web") }, 1},
		{"a sweep of nothing", func() error { _, err := s.SweepTrash(); return err }, 0},
		// The program that moved it was killed before that was on disk: without this, a power
		// cut brings back the name without the record.
		{"a sweep", func() error {
			trash, err := s.root.OpenDir(TrashDir)
			must(t, errors.Join(err, s.dirs.Mkdir("db", 0o700), s.dirs.Rename("db", trash, "db."+NewUID(), 0)))
			_, err = s.SweepTrash()
			return errors.Join(err, trash.Close())
		}, 1},
	} {
		n = 0
		must(t, c.do())
		if n != c.want {
			t.Errorf("%s: forced to disk %d times, expected %d", c.what, n, c.want)
		}
	}
}
