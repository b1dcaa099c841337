// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A directory of a group that holds no process yet may be removed by somebody else
// at any moment: systemd does so with groups that it does not know. We make such a
// group again until a process is in it.

// trimTimeout is how long a directory is made again and again.
const trimTimeout = 10 * time.Second

// trimmed says whether an error can be that of a directory that was removed.
func trimmed(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// gone says whether the directory is another one by now, or none.
func (d *dir) gone() bool {
	_, err := readFile(d.fd(), "cgroup.procs")
	return trimmed(err)
}

// trimmed says whether a directory of the group is gone.
func (g *Group) trimmed() bool { return slices.ContainsFunc(g.dirs, (*dir).gone) }

// made adds a directory that make makes.
func (g *Group) made(make func() (*dir, error)) error {
	d, err := makeDir(make, g.mark)
	if d != nil {
		g.dirs = append(g.dirs, d)
	}
	return err
}

// makeDir calls make until nobody removes what it needs while it runs. If it is
// only the mark that fails, there is a directory to be removed.
func makeDir(make func() (*dir, error), mark string) (*dir, error) {
	deadline := time.Now().Add(trimTimeout)
	for {
		d, err := make()
		if err == nil {
			d.remake, d.mark = make, mark
			return d, d.setMark()
		}
		if !trimmed(err) || time.Now().After(deadline) {
			return nil, err
		}
	}
}

// join moves a process into the directory. again says that it had to be made
// again for that.
func (d *dir) join(pid int) (again bool, err error) {
	deadline := time.Now().Add(trimTimeout)
	for {
		err := d.set("cgroup.procs", strconv.Itoa(pid))
		if !trimmed(err) || d.remake == nil || time.Now().After(deadline) {
			return again, err
		}
		fresh, err := makeDir(d.remake, d.mark)
		if fresh == nil {
			return again, err
		}
		old := *d
		*d = *fresh
		again = true
		if err := errors.Join(err, old.self.Close(), old.parent.Close()); err != nil {
			return again, err
		}
	}
}
