// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
)

// Group is the control groups of one sandbox.
type Group struct {
	dirs []*dir
	mark string // of each directory that is made
	// apply sets the limits of a group that was made here. It is safe to repeat.
	apply func() error
	// unset says that a directory was gone before its limits were set.
	unset bool
}

// dir is one directory of a group.
type dir struct {
	controllers []string // of its v1 hierarchy; cgroup2 has none here
	path        string
	name        string
	parent      *os.File
	self        *os.File
	mark        string
	// remake makes it again, nil if it was not made here.
	remake func() (*dir, error)
}

// newDir opens a directory of a group. It takes over the descriptor of the parent,
// unless it fails.
func newDir(pf *os.File, p, name string, controllers []string) (*dir, error) {
	sf, err := openDir(int(pf.Fd()), name)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s/%s: %w", p, name, err)
	}
	return &dir{controllers: controllers, path: path.Join(p, name), name: name, parent: pf, self: sf}, nil
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// dir returns the directory of a v1 controller, which may share one with others.
func (g *Group) dir(controller string) *dir {
	for _, d := range g.dirs {
		if slices.Contains(d.controllers, controller) {
			return d
		}
	}
	return nil
}

// v2 returns the directory of cgroup2.
func (g *Group) v2() *dir {
	for _, d := range g.dirs {
		if len(d.controllers) == 0 {
			return d
		}
	}
	return nil
}

// holder returns the directory that accounts for a controller, and which of the
// two files is the one there.
func (g *Group) holder(controller, v1, v2 string) (d *dir, file string) {
	if d := g.dir(controller); d != nil {
		return d, v1
	}
	return g.v2(), v2
}

// read reads a number that a controller has; ok says whether it is known.
func (g *Group) read(controller, v1, v2 string) (n int64, ok bool) {
	d, file := g.holder(controller, v1, v2)
	if d == nil {
		return 0, false
	}
	n, err := readInt(d.fd(), file)
	return n, err == nil
}

func (d *dir) fd() int { return int(d.self.Fd()) }

func (d *dir) set(file, value string) error {
	if err := writeFile(d.fd(), file, value); err != nil {
		return fmt.Errorf("set %s of %s to %s: %w", file, d.path, value, err)
	}
	return nil
}

// setIfThere is set for files that a kernel may have been built without, or that are gone
// together with their group.
func (d *dir) setIfThere(file, value string) error {
	if err := d.set(file, value); err != nil && !trimmed(err) {
		return err
	}
	return nil
}

// settings are the files of a limit.
func (l limit) settings() []setting {
	n := strconv.FormatInt(l.value, 10)
	switch l.controller {
	case cpuController:
		quota, period := strconv.FormatInt(l.value*cpuPeriod/1000, 10), strconv.Itoa(cpuPeriod)
		return []setting{
			{controller: l.controller, v1: "cpu.cfs_period_us", value1: period, optional: true},
			{controller: l.controller, v1: "cpu.cfs_quota_us", v2: "cpu.max", value1: quota, value2: quota + " " + period},
		}
	case memoryController:
		return []setting{
			{controller: l.controller, v1: "memory.limit_in_bytes", v2: "memory.max", value1: n, value2: n},
			// No swap: a limit that swaps is none.
			{controller: l.controller, v1: "memory.memsw.limit_in_bytes", v2: "memory.swap.max", value1: n, value2: "0", optional: true},
			// All die together, since half a sandbox is none either.
			{controller: l.controller, v2: "memory.oom.group", value2: "1", optional: true},
		}
	}
	return []setting{{controller: l.controller, v1: "pids.max", v2: "pids.max", value1: n, value2: n}}
}

// Dirs are the directories, for a record.
func (g *Group) Dirs() []string {
	out := make([]string, len(g.dirs))
	for i, d := range g.dirs {
		out[i] = d.path
	}
	return out
}

// CloneFD is a descriptor of the cgroup2 group, for clone3 with CLONE_INTO_CGROUP.
// The group keeps it and closes it.
func (g *Group) CloneFD() (fd int, ok bool) {
	if d := g.v2(); d != nil {
		return d.fd(), true
	}
	return -1, false
}

// Add moves a process into every directory of the group, and makes those again
// that have been removed meanwhile: systemd trims groups without processes. The
// caller has proven whose pid it is: its own gated child.
func (g *Group) Add(pid int) error { return g.add(pid, nil) }

// AddStarted is Add of a process that was started in the group of CloneFD. It is not
// moved to where it is: the kernel would wait for all processors all the same.
func (g *Group) AddStarted(pid int) error { return g.add(pid, g.v2()) }

// add moves a process into every directory but the one that it is in.
func (g *Group) add(pid int, in *dir) error {
	remade := g.unset
	for _, d := range g.dirs {
		again := false
		err := crashpoint.Do(crashpoint.CgroupAdd, func() (err error) {
			if d != in {
				again, err = d.join(pid)
			}
			return err
		})
		if err != nil {
			return err
		}
		remade = remade || again
	}
	if !remade || g.apply == nil {
		return nil
	}
	// Nobody trims it any more: what fails now fails for good.
	g.unset = false
	return g.apply()
}

// PIDs are the processes in the group, for checks.
func (g *Group) PIDs() ([]int, error) {
	var out []int
	for _, d := range g.dirs {
		pids, err := readPIDs(d.fd())
		if err != nil && !trimmed(err) {
			return nil, fmt.Errorf("read processes of %s: %w", d.path, err)
		}
		out = append(out, pids...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// readPIDs are the processes in a directory.
func readPIDs(dir int) ([]int, error) {
	s, err := readFile(dir, "cgroup.procs")
	if err != nil {
		return nil, err
	}
	var out []int
	for f := range strings.FieldsSeq(s) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		out = append(out, pid)
	}
	return out, nil
}

// Kill kills every process in the cgroup2 group, if there is one. No pid is
// involved, so nobody else can be hit.
func (g *Group) Kill() error {
	d := g.v2()
	if d == nil {
		return nil
	}
	// cgroup.kill is of Linux 5.14; before, the caller's pidfds have to do.
	return crashpoint.Do(crashpoint.CgroupKill, func() error { return d.setIfThere("cgroup.kill", "1") })
}

// OOMKills is how often the kernel killed in the group because memory ran out.
func (g *Group) OOMKills() (int64, error) {
	d, file := g.holder(memoryController, "memory.oom_control", "memory.events")
	if d == nil {
		return 0, nil
	}
	n, err := readKey(d.fd(), file, "oom_kill")
	if trimmed(err) {
		return 0, nil
	}
	return n, err
}

// OutOfMemory says whether the kernel has killed in the group because memory ran out, as far
// as that is known, and at which limit: 0 if it has none.
func (g *Group) OutOfMemory() (limit int64, killed bool) {
	n, err := g.OOMKills()
	if err != nil || n == 0 {
		return 0, false
	}
	limit, _ = g.Limits()
	return limit, true
}

// Stats is what a group uses now; a negative value is not known.
type Stats struct {
	MemoryBytes int64 `json:"memoryBytes"`
	CPUNanos    int64 `json:"cpuNanos"`
	PIDs        int64 `json:"pids"`
}

// Stats reads what the kernel accounts to the group.
func (g *Group) Stats() Stats {
	s := Stats{-1, -1, -1}
	if n, ok := g.read(memoryController, "memory.usage_in_bytes", "memory.current"); ok {
		s.MemoryBytes = n
	}
	if n, ok := g.read(pidsController, "pids.current", "pids.current"); ok {
		s.PIDs = n
	}
	if d := g.dir("cpuacct"); d != nil {
		if n, err := readInt(d.fd(), "cpuacct.usage"); err == nil {
			s.CPUNanos = n
		}
	} else if d := g.v2(); d != nil {
		if us, err := readKey(d.fd(), "cpu.stat", "usage_usec"); err == nil {
			s.CPUNanos = us * 1000
		}
	}
	return s
}

// removeRetry is how long to wait for the kernel to notice that a group has
// become empty.
const removeRetry = 5 * time.Millisecond

// busyGrace is how long a process of another program may keep a group before that is
// an error: waiting does not make it leave.
const busyGrace = 2 * time.Second

// Remove removes the directories and the groups below them, which must be empty
// of processes or become so before ctx is done. The error names who is in them.
// It is safe to repeat.
func (g *Group) Remove(ctx context.Context) error {
	var errs []error
	since := time.Now()
	for _, d := range g.dirs {
		errs = append(errs, d.remove(ctx, since))
	}
	return errors.Join(errs...)
}

func (d *dir) remove(ctx context.Context, since time.Time) error {
	for {
		err := crashpoint.Do(crashpoint.CgroupRemove, func() error { return unix.Unlinkat(int(d.parent.Fd()), d.name, unix.AT_REMOVEDIR) })
		switch {
		case err == nil || errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY):
			return fmt.Errorf("remove cgroup %s: %w", d.path, err)
		}
		holder := emptied(d.self, d.path, 0)
		if holder != "" && time.Since(since) > busyGrace {
			return fmt.Errorf("remove cgroup %s: %w: %s; none of them belongs to the sandbox: move them to another cgroup", d.path, err, holder)
		}
		t := time.NewTimer(removeRetry)
		select {
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("remove cgroup %s: %w", d.path, err)
		case <-t.C:
		}
	}
}

// discard undoes a Create that failed.
func (g *Group) discard() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing was in it
	return errors.Join(g.Remove(ctx), g.Close())
}

// Close releases the descriptors, not the groups.
func (g *Group) Close() error {
	var errs []error
	for _, d := range g.dirs {
		errs = append(errs, d.self.Close(), d.parent.Close())
	}
	g.dirs = nil
	return errors.Join(errs...)
}
