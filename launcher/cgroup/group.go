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
	controller string // "" is cgroup2
	path       string
	name       string
	parent     *os.File
	self       *os.File
	mark       string
	// remake makes it again, nil if it was not made here.
	remake func() (*dir, error)
}

// add makes a directory, and the parent of all sandboxes if need be.
func (g *Group) add(mount, controller, name string) error {
	return g.made(func() (*dir, error) { return makeOwn(mount, controller, name) })
}

func makeOwn(mount, controller, name string) (*dir, error) {
	p := path.Join(mount, parent)
	crashpoint.Before(crashpoint.CgroupParent)
	err := unix.Mkdir(p, 0o755)
	crashpoint.After(crashpoint.CgroupParent)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("create cgroup %s: %w", p, err)
	}
	pf, err := openDir(unix.AT_FDCWD, p)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", p, err)
	}
	// One that is there was left by an attempt that was cut short.
	crashpoint.Before(crashpoint.CgroupCreate)
	err = unix.Mkdirat(int(pf.Fd()), name, 0o755)
	crashpoint.After(crashpoint.CgroupCreate)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, errors.Join(fmt.Errorf("create cgroup %s/%s: %w", p, name, err), pf.Close())
	}
	return newDir(pf, p, controller, name)
}

// open opens a directory that was made before.
func (g *Group) open(mount, controller, name string) error {
	p := path.Join(mount, parent)
	pf, err := openDir(unix.AT_FDCWD, p)
	if err != nil {
		return err
	}
	return g.adopt(pf, p, controller, name)
}

func (g *Group) adopt(pf *os.File, p, controller, name string) error {
	d, err := newDir(pf, p, controller, name)
	if err == nil {
		g.dirs = append(g.dirs, d)
	}
	return err
}

// newDir takes over the descriptor of the parent.
func newDir(pf *os.File, p, controller, name string) (*dir, error) {
	sf, err := openDir(int(pf.Fd()), name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open cgroup %s/%s: %w", p, name, err), pf.Close())
	}
	return &dir{controller: controller, path: path.Join(p, name), name: name, parent: pf, self: sf}, nil
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// dir returns the directory of a v1 controller, or with "" that of cgroup2.
func (g *Group) dir(controller string) *dir {
	for _, d := range g.dirs {
		if d.controller == controller {
			return d
		}
	}
	return nil
}

// holder returns the directory that accounts for a controller.
func (g *Group) holder(controller string) *dir {
	if d := g.dir(controller); d != nil {
		return d
	}
	return g.dir("")
}

func (d *dir) fd() int { return int(d.self.Fd()) }

func (d *dir) set(file, value string) error {
	if err := writeFile(d.fd(), file, value); err != nil {
		return fmt.Errorf("set %s of %s to %s: %w", file, d.path, value, err)
	}
	return nil
}

// setIfThere is set for files that a kernel may have been built without.
func (d *dir) setIfThere(file, value string) error {
	if err := d.set(file, value); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// limit sets the limit of one controller.
func (d *dir) limit(controller string, v int64) error {
	v2 := d.controller == ""
	switch controller {
	case cpuController:
		quota := strconv.FormatInt(v*cpuPeriod/1000, 10)
		if v2 {
			return d.set("cpu.max", quota+" "+strconv.Itoa(cpuPeriod))
		}
		return errors.Join(d.set("cpu.cfs_period_us", strconv.Itoa(cpuPeriod)), d.set("cpu.cfs_quota_us", quota))
	case memoryController:
		n := strconv.FormatInt(v, 10)
		if v2 {
			// No swap: a limit that swaps is none. All die together, since half
			// a sandbox is none either.
			return errors.Join(d.set("memory.max", n), d.setIfThere("memory.swap.max", "0"), d.setIfThere("memory.oom.group", "1"))
		}
		return errors.Join(d.set("memory.limit_in_bytes", n), d.setIfThere("memory.memsw.limit_in_bytes", n))
	}
	return d.set("pids.max", strconv.FormatInt(v, 10))
}

// Dirs are the directories, for a record.
func (g *Group) Dirs() []string {
	out := make([]string, len(g.dirs))
	for i, d := range g.dirs {
		out[i] = d.path
	}
	return out
}

// CloneFD is a descriptor of the cgroup2 group, for a process to be born into
// it. It stays the group's.
func (g *Group) CloneFD() (fd int, ok bool) {
	if d := g.dir(""); d != nil {
		return d.fd(), true
	}
	return -1, false
}

// Add moves a process into every directory of the group, and makes those again
// that have been removed meanwhile: systemd trims groups without processes. The
// caller has proven whose pid it is: its own child, held.
func (g *Group) Add(pid int) error {
	remade := g.unset
	for _, d := range g.dirs {
		crashpoint.Before(crashpoint.CgroupAdd)
		again, err := d.join(pid)
		crashpoint.After(crashpoint.CgroupAdd)
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
		s, err := readFile(d.fd(), "cgroup.procs")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read processes of %s: %w", d.path, err)
		}
		for f := range strings.FieldsSeq(s) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return nil, fmt.Errorf("read processes of %s: %w", d.path, err)
			}
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Kill kills every process in the cgroup2 group, if there is one. No pid is
// involved, so nobody else can be hit.
func (g *Group) Kill() error {
	d := g.dir("")
	if d == nil {
		return nil
	}
	// cgroup.kill is of Linux 5.14; before, the caller's pidfds have to do.
	crashpoint.Before(crashpoint.CgroupKill)
	err := d.setIfThere("cgroup.kill", "1")
	crashpoint.After(crashpoint.CgroupKill)
	return err
}

// OOMKills is how often the kernel killed in the group for want of memory.
func (g *Group) OOMKills() (int64, error) {
	d := g.holder(memoryController)
	if d == nil {
		return 0, nil
	}
	file := "memory.oom_control"
	if d.controller == "" {
		file = "memory.events"
	}
	n, err := readKey(d.fd(), file, "oom_kill")
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return n, err
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
	get := func(to *int64, controller string, v1, v2 func(fd int) (int64, error)) {
		d := g.holder(controller)
		if acct := g.dir("cpuacct"); acct != nil && controller == cpuController {
			d = acct // a hierarchy of its own
		}
		if d == nil {
			return
		}
		read := v1
		if d.controller == "" {
			read = v2
		}
		if n, err := read(d.fd()); err == nil {
			*to = n
		}
	}
	file := func(name string) func(int) (int64, error) {
		return func(fd int) (int64, error) { return readInt(fd, name) }
	}
	get(&s.MemoryBytes, memoryController, file("memory.usage_in_bytes"), file("memory.current"))
	get(&s.PIDs, pidsController, file("pids.current"), file("pids.current"))
	get(&s.CPUNanos, cpuController, file("cpuacct.usage"), func(fd int) (int64, error) {
		us, err := readKey(fd, "cpu.stat", "usage_usec")
		return us * 1000, err
	})
	return s
}

// removeRetry is how long to wait for the kernel to notice that a group has
// become empty.
const removeRetry = 5 * time.Millisecond

// busyGrace is how long a process of somebody else's may keep a group before that
// is told: it will not go because of our waiting.
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
		crashpoint.Before(crashpoint.CgroupRemove)
		err := unix.Unlinkat(int(d.parent.Fd()), d.name, unix.AT_REMOVEDIR)
		crashpoint.After(crashpoint.CgroupRemove)
		switch {
		case err == nil || errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY):
			return fmt.Errorf("remove cgroup %s: %w", d.path, err)
		}
		holder := emptied(d.self, d.path, 0)
		if holder != "" && time.Since(since) > busyGrace {
			return fmt.Errorf("remove cgroup %s: %w: %s; nothing of it is the sandbox's: take it away", d.path, err, holder)
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
