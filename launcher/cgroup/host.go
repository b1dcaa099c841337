// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
)

// parent is the group below which every sandbox has its own.
const parent = "sandboxctl"

// cpuPeriod is the period of a processor quota, in microseconds.
const cpuPeriod = 100_000

// The controllers that limits need, by their common names.
const (
	cpuController    = "cpu"
	memoryController = "memory"
	pidsController   = "pids"
)

var controllers = []string{cpuController, memoryController, pidsController}

// known are the v1 controllers that a container gets a group in.
var known = []string{
	"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "net_cls", "net_prio", "perf_event", "pids", "rdma",
}

// Limits of a sandbox as a whole; 0 is none.
type Limits struct {
	CPU    int64 // thousandths of a processor
	Memory int64 // bytes
	PIDs   int64
}

// IsZero says whether nothing is limited.
func (l Limits) IsZero() bool { return l == Limits{} }

func (l Limits) of(controller string) int64 {
	switch controller {
	case cpuController:
		return l.CPU
	case memoryController:
		return l.Memory
	}
	return l.PIDs
}

// Host knows the cgroup hierarchies of a host.
type Host struct {
	v2   string            // mount point of cgroup2, "" if there is none
	v1   map[string]string // mount points of the hierarchies of v1 controllers
	mark string            // that of groups made here, "" for none
}

// Detect finds the hierarchies that are mounted.
func Detect() (*Host, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	defer f.Close()
	return detect(f)
}

func detect(list io.Reader) (*Host, error) {
	mounts, err := mountinfo.GetMountsFromReader(list, mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	h := &Host{v1: map[string]string{}}
	for _, m := range mounts {
		if m.FSType == "cgroup2" {
			h.v2 = cmp.Or(h.v2, m.Mountpoint)
			continue
		}
		for c := range strings.SplitSeq(m.VFSOptions, ",") {
			if slices.Contains(known, c) {
				h.v1[c] = cmp.Or(h.v1[c], m.Mountpoint)
			}
		}
	}
	return h, nil
}

// Version names what there is: v2, v1, hybrid or none.
func (h *Host) Version() string {
	v1 := slices.ContainsFunc(controllers, func(c string) bool { return h.v1[c] != "" })
	switch {
	case h.v2 != "" && v1:
		return "hybrid"
	case h.v2 != "":
		return "v2"
	case v1:
		return "v1"
	}
	return "none"
}

// Unenforced returns the controllers that can't be used here, and why.
func (h *Host) Unenforced() []Unenforced {
	var out []Unenforced
	for _, c := range controllers {
		if why := h.missing(c); why != "" {
			out = append(out, Unenforced{Resource: c, Why: why})
		}
	}
	return out
}

// Unenforced is a limit that this host can't enforce.
type Unenforced struct {
	Resource, Why string
	// Default says that nobody asked for it.
	Default bool
}

// missing says why a controller can't be used, or "".
func (h *Host) missing(c string) string {
	if h.v1[c] != "" {
		return ""
	}
	if h.v2 == "" {
		return "this host has no cgroup hierarchy with the " + c + " controller"
	}
	b, err := os.ReadFile(path.Join(h.v2, "cgroup.controllers"))
	if err != nil {
		return fmt.Sprintf("the controllers of %s can't be read: %v", h.v2, err)
	}
	if !slices.Contains(strings.Fields(string(b)), c) {
		return "the cgroup2 hierarchy of this host does not have the " + c + " controller"
	}
	return ""
}

// onV2 says whether a controller is used on cgroup2.
func (h *Host) onV2(c string) bool { return h.v1[c] == "" && h.missing(c) == "" }

// Create makes the group of a sandbox, with the limits that were asked for.
// What was not asked for has the defaults, as far as this host lets it: it is
// no error that one can't be set, also where one that was asked for would be.
// name is one path component. On error nothing is left.
func (h *Host) Create(name string, asked, defaults Limits) (_ *Group, missing []Unenforced, err error) {
	if !validName(name) {
		return nil, nil, fmt.Errorf("create cgroup: %q is not a plain name", name)
	}
	g := &Group{mark: h.markOf(name)}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.discard())
		}
	}()
	p := Place(path.Join(parent, name))
	if h.v2 != "" {
		if err := h.add(g, h.v2, p); err != nil {
			return nil, nil, err
		}
	}
	var limited []limit
	for _, c := range controllers {
		l := limit{controller: c, value: asked.of(c)}
		if l.value == 0 {
			l.value, l.isDefault = defaults.of(c), true
		}
		if l.value == 0 {
			continue
		}
		why, err := h.prepare(g, p, c)
		if err == nil && why == "" {
			err = g.setLimit(l)
		}
		switch {
		case err != nil && g.trimmed():
			g.unset = true // it is set with the first process
		case err != nil && l.isDefault:
			// A hierarchy that may only be read, as in a container, is a reason to
			// tell and not to refuse every sandbox.
			why = err.Error()
		case err != nil:
			return nil, nil, err
		}
		if why != "" {
			missing = append(missing, Unenforced{Resource: c, Why: why, Default: l.isDefault})
			continue
		}
		limited = append(limited, l)
	}
	g.apply = func() error { return h.setAgain(g, p, limited) }
	return g, missing, nil
}

// limit is what a group gets of one controller.
type limit struct {
	controller string
	value      int64
	isDefault  bool
}

// prepare makes what the limit of a controller needs. It returns why this host has
// no such limits, or "".
func (h *Host) prepare(g *Group, p Place, c string) (why string, err error) {
	if why := h.missing(c); why != "" {
		return why, nil
	}
	if !h.onV2(c) {
		return "", h.add(g, h.v1[c], p)
	}
	err = h.delegate(p, c)
	if err != nil && !trimmed(err) {
		return err.Error(), nil
	}
	// What was removed meanwhile is nothing that this host lacks.
	return "", err
}

func (g *Group) setLimit(l limit) error {
	return crashpoint.Do(crashpoint.CgroupLimit, func() error { return g.set(l.settings(), nil) })
}

// setAgain sets the limits of a group that was made again. Its parent may have been
// removed with it.
func (h *Host) setAgain(g *Group, p Place, limits []limit) error {
	for _, l := range limits {
		var err error
		if h.onV2(l.controller) {
			err = h.delegate(p, l.controller)
		}
		if err == nil {
			err = g.setLimit(l)
		}
		if err != nil && !l.isDefault {
			return err
		}
	}
	return nil
}

// delegateTries is how often a controller is handed down again. systemd takes one away
// once for each change of its units.
const delegateTries = 25

// delegate makes a cgroup2 controller available to a place. Until the last group on
// the way has it, others can take it away from the first: systemd does while a host
// boots, and a sandbox would be without its limits. Then it is handed down again.
func (h *Host) delegate(p Place, c string) error {
	var err error
	for range delegateTries {
		if err = h.handDown(p, c); !trimmed(err) {
			return err
		}
	}
	return err
}

// handDown turns a controller on in every group above a place.
func (h *Host) handDown(p Place, c string) error {
	at := h.v2
	enable := func(dir *os.File, next string) error {
		on, err := readFile(int(dir.Fd()), subtreeControl)
		if err == nil {
			// Also where it is on: somebody else may be about to turn it on, and the
			// files of the groups below are there when a write returns.
			err = writeFile(int(dir.Fd()), subtreeControl, "+"+c)
			if slices.Contains(strings.Fields(on), c) && !trimmed(err) {
				err = nil // it may only be read here
			}
		}
		switch {
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("%s has processes of its own, so that the %s controller can't be enabled below it", at, c)
		case err != nil:
			return fmt.Errorf("enable the %s controller in %s: %w", c, at, err)
		}
		at = path.Join(at, next)
		return nil
	}
	dir, _, err := walkTo(h.v2, p, enable)
	if err != nil {
		return err
	}
	defer dir.Close()
	return enable(dir, "")
}

// subtreeControl is the file of the controllers that groups below have.
const subtreeControl = "cgroup.subtree_control"

// Open returns the group of directories that were recorded. What is not there
// any more is left out. A path that this host's Create could not have made is
// an error: a damaged record must not name the group of something else.
func (h *Host) Open(dirs []string) (*Group, error) {
	if len(dirs) == 0 {
		return &Group{}, nil
	}
	if !validName(path.Base(dirs[0])) {
		return nil, fmt.Errorf("open cgroup: %q is not one of a sandbox", dirs[0])
	}
	return h.OpenAt(Place(path.Join(parent, path.Base(dirs[0]))), dirs)
}

// NameOf is the name of the group that a path of /proc/PID/cgroup is of, "" if
// it is none of a sandbox.
func NameOf(p string) string {
	dir, name := path.Split(p)
	if path.Base(dir) != parent || !validName(name) {
		return ""
	}
	return name
}

// OpenOwn returns whatever there is of the group that Create makes of a name.
func (h *Host) OpenOwn(name string) (*Group, error) {
	if !validName(name) {
		return nil, fmt.Errorf("open cgroup: %q is not a plain name", name)
	}
	return h.openAll(Place(path.Join(parent, name)))
}

func validName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) < 256 && !strings.ContainsAny(s, "/\x00\n")
}

// writeFile writes to a control file, which takes the value in one write.
func writeFile(dir int, name, value string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Write(fd, []byte(value))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func readFile(dir int, name string) (string, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	return string(b), err
}

func readInt(dir int, name string) (int64, error) {
	s, err := readFile(dir, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(s), 10, 64)
}

// readKey reads "key N" out of a control file of such lines.
func readKey(dir int, name, key string) (int64, error) {
	s, err := readFile(dir, name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(s) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == key {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("read %s: no %s", name, key)
}
