// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// row is one thing that is measured, of several subjects.
type row struct {
	ID   string `json:"id"`
	What string `json:"what"`
	Unit string `json:"unit"`
	// Goal is what sandboxctl is to stay at or below, 0 if there is none: the ratio of
	// its median to that of Base, the difference of the two, or the median itself.
	Goal   float64              `json:"goal,omitempty"`
	Base   string               `json:"base,omitempty"`
	Differ bool                 `json:"difference,omitempty"`
	Series map[string][]float64 `json:"series"`
	// Notes say of subjects why they are not measured.
	Notes map[string]string `json:"notes,omitempty"`
}

func (r *row) add(subject string, v float64) {
	if r.Series == nil {
		r.Series = map[string][]float64{}
	}
	r.Series[subject] = append(r.Series[subject], v)
}

// The names of subjects.
const (
	sandboxctlName = "sandboxctl"
	runscName      = "runsc"
)

// bench is one run.
type bench struct {
	ctx   context.Context // ends the run
	cfg   config
	out   io.Writer // progress
	group *group
	ours  *ours
	runsc *oci
	many  map[string]fleet                         // those that can run many sandboxes
	peers map[string]func() (time.Duration, error) // that start a sandbox which prints a line
	ends  []func() error
	left  bool // something may run that could not be ended
	rows  []*row
}

// compared adds a row with a ratio to runsc.
func (b *bench) compared(id, what, unit string, goal float64) *row {
	r := b.alone(id, what, unit, goal)
	r.Base = runscName
	return r
}

// alone adds a row of sandboxctl alone.
func (b *bench) alone(id, what, unit string, goal float64) *row {
	r := &row{ID: id, What: what, Unit: unit, Goal: goal}
	b.rows = append(b.rows, r)
	return r
}

func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.out, "bench: "+format+"\n", args...)
}

// open prepares every subject that is there.
func (b *bench) open(rootfs string) error {
	var err error
	if b.ours, err = newOurs(b.ctx, b.cfg.bin, filepath.Join(b.cfg.work, "ours"), busyboxGuest(rootfs)); err != nil {
		return err
	}
	b.ends = append(b.ends, b.ours.close)
	if err := b.ours.startDaemon(); err != nil {
		return err
	}
	b.many = map[string]fleet{sandboxctlName: b.ours}
	if !b.cfg.peers {
		return nil
	}
	return b.openPeers(busyboxGuest(rootfs))
}

// openPeers prepares runsc, and the others that are installed.
func (b *bench) openPeers(g guest) (err error) {
	runsc := filepath.Join(b.cfg.bin, "runsc")
	if _, err := os.Stat(runsc); err != nil {
		return fmt.Errorf("there is no runsc to compare with; make bench builds it, -peers=false goes without: %w", err)
	}
	if b.runsc, err = newOCI(runsc, filepath.Join(b.cfg.work, "runsc"), g, "--network=none", "--ignore-cgroups"); err != nil {
		return err
	}
	b.ends = append(b.ends, b.runsc.close)
	b.many[runscName] = b.runsc
	b.peers = map[string]func() (time.Duration, error){runscName: b.runsc.run}
	if path, err := exec.LookPath("runc"); err == nil {
		o, err := newOCI(path, filepath.Join(b.cfg.work, "runc"), g)
		if err != nil {
			return err
		}
		b.peers["runc"] = o.run
	}
	work := filepath.Join(b.cfg.work, "podman")
	if p, err := newPodman(runsc, work, g, runscOf(work)...); err == nil {
		b.ends = append(b.ends, p.close)
		_ = share(p.groups) // what a container runs has the share of what others run
		b.peers[podmanName] = p.runRoot
	}
	if _, err := exec.LookPath("s6-svscan"); err == nil {
		s, err := newSupervisor(filepath.Join(b.cfg.work, "s6"), b.runsc)
		if err != nil {
			return err
		}
		b.ends = append(b.ends, s.close)
		b.peers["s6 + runsc"] = s.run
	}
	return nil
}

func (b *bench) close() error {
	var errs []error
	for _, end := range slices.Backward(b.ends) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// task is one measurement of a round.
type task struct {
	row     *row
	subject string
	run     func() (time.Duration, error)
}

// rounds carries out every task once a round, in a random order.
func (b *bench) rounds(what string, n int, tasks []task) error {
	for r := range n {
		rand.Shuffle(len(tasks), func(i, j int) { tasks[i], tasks[j] = tasks[j], tasks[i] })
		for _, t := range tasks {
			d, err := t.run()
			err = errors.Join(err, b.ctx.Err())
			if err != nil {
				return fmt.Errorf("%s of %s: %w", t.row.ID, t.subject, err)
			}
			t.row.add(t.subject, milliseconds(d))
		}
		if r%5 == 4 || r == n-1 {
			b.progress("%s: %d of %d rounds", what, r+1, n)
		}
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// starts measures single starts.
func (b *bench) starts() error {
	start := b.compared("start", "manifest renamed in → first output (runsc: `run` → first output)", "ms", 0.6)
	noInit := b.compared("start-no-init", "the same with `init: false`", "ms", 0.6)
	restart := b.compared("restart", "`kill -9` of the sentry → first output, backoff 0 (runsc: `run`)", "ms", 0.65)
	tasks := []task{
		{start, sandboxctlName, func() (time.Duration, error) { return b.ours.run("") }},
		{noInit, sandboxctlName, func() (time.Duration, error) { return b.ours.run("  init: false\n") }},
		{restart, sandboxctlName, b.ours.restart},
	}
	version := b.alone("version", "`sandboxctl version` → its first line", "ms", 5)
	whole := b.alone("version-whole", "the whole process, with the answers of sentry and gofer", "ms", 0)
	tasks = append(tasks, task{version, sandboxctlName, func() (time.Duration, error) { return firstLineOf(b.ours.command("version")) }},
		task{whole, sandboxctlName, func() (time.Duration, error) { return timed(b.ours.command("version")) }})
	for name, run := range b.peers {
		tasks = append(tasks, task{start, name, run})
	}
	if err := b.rounds("starts", b.cfg.rounds, tasks); err != nil {
		return err
	}
	// One series of runsc is what all three are compared with: they were one round.
	if values, ok := start.Series[runscName]; ok {
		noInit.Series[runscName], restart.Series[runscName] = values, values
	}
	return nil
}

// fleet is what runs many sandboxes.
type fleet interface {
	up(n int) error
	down(n int) error
	exec(i int) *exec.Cmd
	list() *exec.Cmd
	holds(all []proc) map[int]bool
}

// timed runs a command.
func timed(cmd *exec.Cmd) (time.Duration, error) {
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return time.Since(began), err
}

// cost measures the time of f, and the processor time.
func (b *bench) cost(f func() error) (wall, cpu float64, err error) {
	before, err := b.group.used()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := f(); err != nil {
		return 0, 0, err
	}
	took := time.Since(began)
	// What a start leaves to be done belongs to it: garbage is given back after 2 s.
	if err := sleep(b.ctx, 4*time.Second); err != nil {
		return 0, 0, err
	}
	after, err := b.group.used()
	return milliseconds(took), milliseconds(after - before), err
}

// fleets measures many sandboxes at once.
func (b *bench) fleets() error {
	n := b.cfg.fleet
	upWall := b.compared("up", fmt.Sprintf("%d sandboxes at once → all run (runsc: `run --detach`, 4 in parallel)", n), "ms", 0.6)
	upCPU := b.compared("up-cpu", "the same, processor time", "ms", 0.6)
	downWall := b.compared("down", fmt.Sprintf("%d removed at once → nothing is left (runsc: `delete --force`, 4 in parallel)", n), "ms", 0.6)
	downCPU := b.compared("down-cpu", "the same, processor time", "ms", 0.4)
	execRow := b.compared("exec", "`exec` of `true`", "ms", 0.6)
	list := b.compared("list", fmt.Sprintf("`get` of %d (runsc: `list`)", n), "ms", 0.15)
	memory := b.compared("memory", fmt.Sprintf("PSS of an idle sandbox, all its processes, mean of %d", n), "MiB", 0.55)
	// What ours may take each, in MiB; runsc's stand beside them.
	sentry := b.alone("sentry-memory", "of it: the sentry (runsc: sandbox) with systrap's processes", "MiB", 8.1)
	gofer := b.alone("gofer-memory", "of it: the gofer", "MiB", 2)
	daemon := b.alone("daemon-memory", fmt.Sprintf("PSS of the daemon with %d sandboxes", n), "MiB", 20)
	idleCPU := b.alone("daemon-idle", fmt.Sprintf("processor time of the idle daemon with %d sandboxes, %s", n, b.cfg.idle), "ms", 2)
	subjects, names := b.many, slices.Sorted(maps.Keys(b.many))
	for r := range b.cfg.bursts {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			wall, cpu, err := b.cost(func() error { return subjects[name].up(n) })
			if err != nil {
				return fmt.Errorf("start %d of %s: %w", n, name, err)
			}
			upWall.add(name, wall)
			upCPU.add(name, cpu)
		}
		if err := b.sizes(subjects, memory, sentry, gofer, daemon); err != nil {
			return err
		}
		if err := b.verbs(subjects, execRow, list); err != nil {
			return err
		}
		before, err1 := cpuOf(b.ours.daemon.Process.Pid)
		if err := sleep(b.ctx, b.cfg.idle); err != nil {
			return err
		}
		after, err2 := cpuOf(b.ours.daemon.Process.Pid)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		idleCPU.add(sandboxctlName, milliseconds(after-before))
		for _, name := range names {
			wall, cpu, err := b.cost(func() error { return subjects[name].down(n) })
			if err != nil {
				return fmt.Errorf("remove %d of %s: %w", n, name, err)
			}
			downWall.add(name, wall)
			downCPU.add(name, cpu)
		}
		b.progress("%d at once: %d of %d rounds", n, r+1, b.cfg.bursts)
	}
	return nil
}

// sizes adds what a sandbox of each subject takes, and its parts, and what the daemon
// takes.
func (b *bench) sizes(subjects map[string]fleet, memory, sentry, gofer, daemon *row) error {
	all, err := processes()
	if err != nil {
		return err
	}
	for name, s := range subjects {
		of := s.holds(all)
		for r, pids := range map[*row]map[int]bool{
			memory: of,
			sentry: called(all, of, "sandboxctl-sentry", "runsc-sandbox"),
			gofer:  called(all, of, "sandboxctl-gofer", "runsc-gofer"),
		} {
			mib, err := pss(pids)
			if err != nil {
				return err
			}
			r.add(name, mib/float64(b.cfg.fleet))
		}
	}
	mib, err := pss(map[int]bool{b.ours.daemon.Process.Pid: true})
	daemon.add(sandboxctlName, mib)
	return err
}

// verbs measures those that people wait for while the fleets run.
func (b *bench) verbs(subjects map[string]fleet, execRow, list *row) error {
	var tasks []task
	at := 0
	for name, s := range subjects {
		tasks = append(tasks,
			task{execRow, name, func() (time.Duration, error) { at = (at + 1) % b.cfg.fleet; return timed(s.exec(at)) }},
			task{list, name, func() (time.Duration, error) { return timed(s.list()) }})
	}
	return b.rounds("verbs", b.cfg.rounds, tasks)
}
