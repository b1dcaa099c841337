// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
)

// line is one that a sandbox has written.
type line struct {
	at   time.Time
	text string
}

// side is what runs sandboxes of an image.
type side interface {
	run() (time.Duration, error)             // a start, until its first line
	script(text string) ([]line, error)      // in a new sandbox
	serve(s server) error                    // in one with a volume
	ask(name, script string) (string, error) // in that of a server
	stop() error                             // ends all servers
	up(n int) error
	down(n int) error
	holds(all []proc) map[int]bool
	charged(n int) (float64, error) // to the cgroups of those that are up, in MiB
	disk() (float64, error)         // all that is stored, in MiB
}

// imagesRun measures sandboxes of an image beside containers of the same tree.
func (b *bench) imagesRun() error {
	tar, dir := b.cfg.tree, filepath.Join(b.cfg.work, "tree")
	if err := b.debianTar(tar); err != nil {
		return err
	}
	if err := unpack(tar, dir); err != nil {
		return err
	}
	g := guest{root: "{image: {ref: 'local:bench:1'}}", dir: dir, print: []string{"/bin/echo", "up"}, sleep: []string{"/bin/sleep", "1000000"}}
	o, err := newOurs(b.ctx, b.cfg.bin, filepath.Join(b.cfg.work, "images"), g)
	if err != nil {
		return err
	}
	b.ends = append(b.ends, o.close)
	if _, err := output(o.command("image", "import", tar, "bench:1")); err != nil {
		return err
	}
	if err := o.startDaemon(); err != nil {
		return err
	}
	c := &comparison{b: b, sides: map[string]side{sandboxctlName: &imageSide{o}}, unable: map[string]string{}}
	var dirRun func() (time.Duration, error)
	if b.cfg.peers {
		if dirRun, err = c.addPeers(tar, g); err != nil {
			return err
		}
	}
	b.progress("images: every side has the image")
	if err := c.starts(dirRun); err != nil {
		return err
	}
	if err := c.reads(); err != nil {
		return err
	}
	if err := c.servers(dir); err != nil {
		return err
	}
	return c.fleets()
}

// comparison is ours beside podman with runsc. A peer that can't do something here is
// named in the table with the reason.
type comparison struct {
	b      *bench
	sides  map[string]side
	unable map[string]string // peers that can do nothing
}

// addPeers returns the measurement of a run of the directory by runsc.
func (c *comparison) addPeers(tar string, g guest) (func() (time.Duration, error), error) {
	b := c.b
	runsc := filepath.Join(b.cfg.bin, "runsc")
	r, err := newOCI(runsc, filepath.Join(b.cfg.work, "tree-runsc"), g, "--network=none", "--ignore-cgroups")
	if err != nil {
		return nil, err
	}
	b.ends = append(b.ends, r.close)
	work := filepath.Join(b.cfg.work, "podman-images")
	p, err := newPodman(runsc, work, g, runscOf(work)...)
	if err == nil {
		b.ends = append(b.ends, p.close)
		_ = share(p.groups) // what a container runs has the share of what others run
		err = p.use(tar)
	}
	if err != nil {
		c.unable[podmanName] = reason(err)
		return r.run, b.ctx.Err()
	}
	c.sides[podmanName] = p
	return r.run, nil
}

// reason is an error in one cell of a table.
func reason(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "|", "/")), " ")
}

// row adds one that is compared with podman.
func (c *comparison) row(id, what, unit string, goal float64) *row {
	r := c.b.alone(id, what, unit, goal)
	r.Base, r.Notes = podmanName, maps.Clone(c.unable)
	return r
}

// able is that of the bench, for both sides.
func (c *comparison) able(try func(name string, s side) error, rows ...*row) ([]string, error) {
	return c.b.able(slices.Sorted(maps.Keys(c.sides)), func(name string) error { return try(name, c.sides[name]) }, rows...)
}

// able tries something once on each side, which warms it up as well, and returns the
// sides that can do it. The rows say why the others can't.
func (b *bench) able(names []string, try func(name string) error, rows ...*row) ([]string, error) {
	var out []string
	for _, name := range names {
		err := errors.Join(try(name), b.ctx.Err())
		switch {
		case err == nil:
			out = append(out, name)
		case name == sandboxctlName || b.ctx.Err() != nil:
			return nil, fmt.Errorf("%s of %s: %w", rows[0].ID, name, err)
		default:
			for _, r := range rows {
				r.Notes[name] = reason(err)
			}
		}
	}
	return out, nil
}

// starts measures starts from the image, beside one of the directory by runsc.
func (c *comparison) starts(dirRun func() (time.Duration, error)) error {
	start := c.b.compared("image-start", "start from an image → first output (runsc: `run` of the same root as a directory)", "ms", 0.6)
	beside := c.row("image-start-podman", "the same, compared with `podman run` of the same image", "ms", 0.35)
	names, err := c.able(func(_ string, s side) error { _, err := s.run(); return err }, beside)
	if err != nil {
		return err
	}
	var tasks []task
	for _, name := range names {
		tasks = append(tasks, task{beside, name, c.sides[name].run})
	}
	if dirRun != nil {
		tasks = append(tasks, task{start, runscName, dirRun})
	}
	if err := c.b.rounds("images: starts", c.b.cfg.rounds, tasks); err != nil {
		return err
	}
	for _, v := range beside.Series[sandboxctlName] { // they were one round
		start.add(sandboxctlName, v)
	}
	return nil
}

// between is a script that says when it begins with something and when it has ended. The
// times are those of the host.
func between(script string) string { return "echo begin\n" + script + "\necho end\n" }

// duration is the time between both, and what the script has printed.
func duration(lines []line) (time.Duration, string, error) {
	n := len(lines)
	if n < 2 || lines[0].text != "begin" || lines[n-1].text != "end" {
		return 0, "", fmt.Errorf("the sandbox has written %v", lines)
	}
	var text []string
	for _, l := range lines[1 : n-1] {
		text = append(text, l.text)
	}
	return lines[n-1].at.Sub(lines[0].at), strings.Join(text, "\n"), nil
}

const (
	findAll = "find / -xdev >/dev/null"
	// GNU tar reads no file if it writes to /dev/null.
	tarAll = "cd /; tar -cf /dev/zero bin etc lib* opt root sbin srv usr var 2>/dev/null"
	// What both sides must agree on.
	countAll = "find /bin/ /etc /lib/ /opt /root /sbin/ /srv /usr /var | wc -l"
)

// reads measures programs that look at the whole root, each in a new sandbox.
func (c *comparison) reads() error {
	find := c.row("image-find", "`find` of the whole root, in a new sandbox", "ms", 0.71)
	tar := c.row("image-tar", "`tar` of the whole root, in a new sandbox", "ms", 0.91)
	counts := map[string]string{}
	names, err := c.able(func(name string, s side) error {
		lines, err := s.script(between(tarAll + "; " + countAll))
		if err != nil {
			return err
		}
		_, counts[name], err = duration(lines)
		return err
	}, find, tar)
	if err != nil {
		return err
	}
	c.b.progress("images: files that each side sees: %v", counts)
	var tasks []task
	for _, name := range names {
		for r, script := range map[*row]string{find: between(findAll), tar: between(tarAll)} {
			tasks = append(tasks, task{r, name, func() (time.Duration, error) {
				lines, err := c.sides[name].script(script)
				if err != nil {
					return 0, err
				}
				d, _, err := duration(lines)
				return d, err
			}})
		}
	}
	return c.b.rounds("images: find and tar", (c.b.cfg.rounds+1)/2, tasks)
}

// fleets measures many sandboxes of the image at once, and what they take.
func (c *comparison) fleets() error {
	n := c.b.cfg.fleet
	up := c.row("image-up", fmt.Sprintf("%d sandboxes of an image at once → all run (podman: `run --detach`, 4 in parallel)", n), "ms", 0)
	cpu := c.row("image-up-cpu", "the same, processor time", "ms", 0)
	size := c.row("image-pss", fmt.Sprintf("PSS of one of %d, all its processes", n), "MiB", 0)
	free := c.row("image-available", "MemAvailable that it takes", "MiB", 0)
	charge := c.row("image-charge", "what is charged to its cgroups", "MiB", 0)
	stored := c.row("image-disk", "disk that the image takes", "MiB", 0)
	more := c.row("image-disk-each", "disk that each sandbox takes beside it", "MiB", 0)
	rows := []*row{up, cpu, size, free, charge, stored, more}
	_, err := c.able(func(name string, s side) error {
		return errors.Join(c.fleet(name, s, rows), s.stop())
	}, rows...)
	return err
}

// fleet measures that of one side. The rows are those of fleets.
func (c *comparison) fleet(name string, s side, rows []*row) error {
	n := c.b.cfg.fleet
	empty, err1 := s.disk()
	before, err2 := available()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	wall, cpu, err := c.b.cost(func() error { return s.up(n) })
	if err != nil {
		return err
	}
	after, err1 := available()
	all, err2 := processes()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	mib, err1 := pss(s.holds(all))
	charged, err2 := s.charged(n)
	full, err3 := s.disk()
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	each := float64(n)
	for i, v := range []float64{wall, cpu, mib / each, (before - after) / each, charged / each, empty, (full - empty) / each} {
		rows[i].add(name, v)
	}
	c.b.progress("images: %d sandboxes of %s: done", n, name)
	return s.down(n)
}

// imageSide is ours with an image.
type imageSide struct{ *ours }

func (o *imageSide) run() (time.Duration, error) { return o.ours.run("") }

// script returns what a sandbox has logged once it has ended.
func (o *imageSide) script(text string) ([]line, error) {
	o.serial++
	name := fmt.Sprintf("script-%d", o.serial)
	if _, err := o.put(name, once([]string{"/bin/sh", "-c", text})); err != nil {
		return nil, err
	}
	err := o.until("the end of "+name, func() (bool, error) {
		rec, _, _ := o.store.Get(name)
		return rec != nil && rec.Phase == actual.PhaseStopped, nil
	})
	if err != nil {
		return nil, err
	}
	text, err = output(o.command("logs", "--timestamps", name))
	if err != nil {
		return nil, err
	}
	var lines []line
	for l := range strings.Lines(text) {
		stamp, rest, _ := strings.Cut(strings.TrimSuffix(l, "\n"), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line{at, rest})
	}
	return lines, o.clear()
}

func (o *imageSide) serve(s server) error {
	uid, gid, err := idsOf(o.guest.dir, s.user)
	if err != nil {
		return err
	}
	var spec bytes.Buffer
	fmt.Fprintf(&spec, "  command: %s\n  user: {name: %s}\n  terminationGracePeriod: 1s\n", flow([]string{"/bin/sh", "-c", s.script}), s.user)
	fmt.Fprintf(&spec, "  volumes:\n  - {mountPath: /data, volume: {name: %s}, ownership: {uid: %d, gid: %d}}\n", s.name, uid, gid)
	if s.direct {
		spec.WriteString("  fileAccess: direct\n")
	}
	if _, err := o.put(s.name, spec.String()); err != nil {
		return err
	}
	_, err = o.running(s.name)
	return err
}

func (o *imageSide) ask(name, script string) (string, error) {
	return output(o.command("exec", name, "--", "/bin/sh", "-c", script))
}

func (o *imageSide) stop() error { return o.clear() }

func (o *imageSide) disk() (float64, error) { return allocated(filepath.Join(o.work, "state")) }
