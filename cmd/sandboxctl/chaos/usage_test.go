// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
)

// usage is what a run holds on to at one moment.
type usage struct {
	block    int
	fds      int // of the daemon, without the two that it has for each sandbox
	threads  int // of the daemon
	memory   int // that the daemon has written to, KiB
	files    int // in the state directory, without those of sandboxes and of stores
	stores   int // in the stores of images and volumes
	perFiles int // in the directory of the sandbox that has most
	mounts   int // of this mount namespace, below the directory of the test
	groups   int // cgroups more than there are sandboxes
}

// usage looks at a daemon that has nothing to do.
func (c *chaos) usage(block int) usage {
	c.t.Helper()
	pid := strconv.Itoa(c.daemon.cmd.Process.Pid)
	count := func(dir string) int {
		entries, err := os.ReadDir(dir)
		must(c.t, err)
		return len(entries)
	}
	running := len(c.twins())
	u := usage{block: block, fds: count("/proc/"+pid+"/fd") - 2*running, threads: count("/proc/" + pid + "/task")}
	smaps, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
	must(c.t, err)
	for line := range strings.Lines(string(smaps)) {
		// Not Private_Clean: the 10 MiB of the program are private or shared, as other
		// processes of the program, also those of other tests, come and go.
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Private_Dirty:" {
			n, err := strconv.Atoi(f[1])
			must(c.t, err)
			u.memory += n
		}
	}
	per := map[string]int{}
	must(c.t, filepath.WalkDir(c.state, func(p string, _ fs.DirEntry, err error) error {
		if p == filepath.Join(c.state, actual.DeletedDir) {
			return fs.SkipDir // up to its own bounds (TestKeepDeleted)
		}
		rest, of := strings.CutPrefix(p, c.state+"/sandboxes/")
		if name, _, below := strings.Cut(rest, "/"); of && below {
			per[name]++
		} else if strings.HasPrefix(p, c.state+"/images/") || strings.HasPrefix(p, c.state+"/volumes/") {
			u.stores++
		} else if !of {
			u.files++
		}
		return err
	}))
	for _, n := range per {
		u.perFiles = max(u.perFiles, n)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(c.t, err)
	u.mounts = len(lines(string(mounts), c.dir))
	groups, err := c.groups()
	must(c.t, err)
	u.groups = len(groups) - running*groupsEach(groups)
	return u
}

// groupsEach is how many cgroups one sandbox has: one in each hierarchy.
func groupsEach(groups []string) int {
	dirs := map[string]bool{}
	for _, g := range groups {
		dirs[filepath.Dir(g)] = true
	}
	return len(dirs)
}

// flat compares what was held in the second half of the run with the first, and
// in each block, whose daemon was one process, likewise.
func (c *chaos) flat() {
	c.t.Helper()
	blocks := map[int][]usage{}
	for _, u := range c.use {
		blocks[u.block] = append(blocks[u.block], u)
	}
	c.compare("of the run", c.use)
	for b, us := range blocks {
		c.compare(fmt.Sprintf("of block %d", b), us)
	}
	if n := len(c.use); n > 0 {
		c.t.Logf("use at the beginning %+v, at the end %+v", c.use[0], c.use[n-1])
	}
}

func (c *chaos) compare(what string, us []usage) {
	c.t.Helper()
	if len(us) < 4 {
		return
	}
	first, second := us[:len(us)/2], us[len(us)/2:]
	for _, m := range []struct {
		name  string
		of    func(usage) int
		slack int
	}{
		// A pair that waits for a sandbox has five, and is there or not.
		{"descriptors", func(u usage) int { return u.fds }, 2 + 5},
		// A thread more for every processor that was busy when a call blocked.
		{"threads", func(u usage) int { return u.threads }, 6},
		{"KiB of memory", func(u usage) int { return u.memory }, 6 << 10},
		{"files", func(u usage) int { return u.files }, 1},
		// The store has one image or two, with what is known of each.
		{"files of stores", func(u usage) int { return u.stores }, 8},
		// The logs of the attempt before are three files, which a sandbox has or not.
		{"files of a sandbox", func(u usage) int { return u.perFiles }, 3},
		{"mounts", func(u usage) int { return u.mounts }, 0},
		{"cgroups", func(u usage) int { return u.groups }, 0},
	} {
		if a, b := median(first, m.of), median(second, m.of); b > a+m.slack {
			c.t.Errorf("%s: %d in the first half %s, %d in the second", m.name, a, what, b)
		}
	}
}

func median(us []usage, of func(usage) int) int {
	s := slices.Clone(us)
	slices.SortFunc(s, func(a, b usage) int { return cmp.Compare(of(a), of(b)) })
	return of(s[len(s)/2])
}

// goroutines ends the daemon with a dump of its goroutines, and counts them by
// who has started them.
func (c *chaos) goroutines() (total int, by map[string]int) {
	c.t.Helper()
	from := c.logSize()
	c.stop(unix.SIGQUIT)
	by = map[string]int{}
	dump := c.logFrom(from)
	for _, l := range lines(dump, "created by ") {
		creator, _, _ := strings.Cut(strings.TrimPrefix(l, "created by "), " in goroutine")
		// Those of the runtime depend on what was collected when.
		if !strings.HasPrefix(creator, "runtime.") {
			by[creator]++
			total++
		}
	}
	if total == 0 {
		c.t.Fatalf("no goroutines in\n%s", dump)
	}
	return total, by
}
