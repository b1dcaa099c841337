// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Names of series that only sandboxctl has.
const few = "with 10 manifests"

// changes measures one new manifest among many that are suspended → the daemon's
// line that says what it does about it, and the same among ten.
func (b *bench) changes() error {
	r := b.alone("change", fmt.Sprintf("one new manifest among %d → its start begins, more than among 10", b.cfg.many), "ms", 10)
	r.Base, r.Differ = few, true
	sizes := map[string]int{few: 10, sandboxctlName: b.cfg.many}
	names := []string{few, sandboxctlName}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		if err := b.ours.suspended(sizes[name]); err != nil {
			return err
		}
		for i := range b.cfg.rounds {
			d, err := b.ours.reaction(fmt.Sprintf("change-%s-%d", strings.Fields(name)[0], i))
			if err != nil {
				return err
			}
			r.add(name, milliseconds(d))
		}
		if err := b.ours.clear(); err != nil {
			return err
		}
		b.progress("changes among %d manifests: done", sizes[name])
	}
	return nil
}

// suspended puts many manifests in whose sandboxes are not to run.
func (o *ours) suspended(n int) error {
	dir := filepath.Join(o.work, "next")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		name := fmt.Sprintf("not-%d", i)
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), o.manifest(name, "  suspend: true\n"+o.idle()), 0o644); err != nil {
			return err
		}
	}
	if err := os.Rename(dir, filepath.Join(o.work, "manifests", "many")); err != nil {
		return err
	}
	// A manifest that comes after them is acted on once they are known.
	_, err := o.reaction(fmt.Sprintf("first-of-%d", n))
	return err
}

// reaction puts a manifest in and returns how long it took until the daemon began
// to start it, by its log.
func (o *ours) reaction(name string) (time.Duration, error) {
	from, err := o.log.Seek(0, 2)
	if err != nil {
		return 0, err
	}
	began, err := o.put(name, once(o.guest.print))
	if err != nil {
		return 0, err
	}
	var at time.Time
	err = o.until("the start of "+name, func() (bool, error) {
		at, err = logged(o.log.Name(), from, "msg=create sandbox="+name+" ")
		return !at.IsZero(), err
	})
	if err != nil {
		return 0, err
	}
	if _, err := o.firstLine(name, 1); err != nil {
		return 0, err
	}
	// The log has milliseconds: they are cut, not rounded.
	return max(0, at.Add(time.Millisecond/2).Sub(began)), os.Remove(filepath.Join(o.work, "manifests", name+".yaml"))
}

// logged is the time of the first line of a log, from an offset on, with a text in
// it, zero if there is none.
func logged(path string, from int64, text string) (time.Time, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return time.Time{}, err
	}
	lines := bufio.NewScanner(bytes.NewReader(data[min(from, int64(len(data))):]))
	for lines.Scan() {
		if !strings.Contains(lines.Text(), text) {
			continue
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "time="), " ")
		return time.Parse(time.RFC3339Nano, stamp)
	}
	return time.Time{}, lines.Err()
}

// adoption measures the start of a daemon → it watches both processes of every
// sandbox that runs.
func (b *bench) adoption() error {
	n := b.cfg.adopted
	r := b.alone("adoption", fmt.Sprintf("start of the daemon with %d sandboxes → all adopted and watched", n), "ms", 300)
	if err := b.ours.up(n); err != nil {
		return err
	}
	for range b.cfg.bursts {
		if err := b.ours.stopDaemon(); err != nil {
			return err
		}
		began := time.Now()
		if err := b.ours.startDaemon(); err != nil {
			return err
		}
		if err := b.ours.until("the adoption of all", func() (bool, error) { return watched(b.ours.daemon.Process.Pid, 2*n) }); err != nil {
			return err
		}
		r.add(sandboxctlName, milliseconds(time.Since(began)))
	}
	b.progress("adoption of %d: done", n)
	return b.ours.clear()
}

// watched says whether a process has as many pidfds as it needs.
func watched(pid, need int) (bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < need {
		return false, err
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.Contains(to, "pidfd") {
			n++
		}
	}
	return n >= need, nil
}

// crowd measures what very many idle sandboxes take, in three ways that need not
// agree: PSS leaves out what the kernel holds for them.
func (b *bench) crowd() error {
	n := b.cfg.crowd
	if n == 0 {
		return nil
	}
	took := b.alone("crowd-up", fmt.Sprintf("%d sandboxes at once → all run, each", n), "ms", 0)
	size := b.alone("crowd-pss", fmt.Sprintf("PSS of one of %d idle sandboxes", n), "MiB", 0)
	free := b.alone("crowd-available", "MemAvailable that it takes", "MiB", 0)
	charge := b.alone("crowd-charge", "what is charged to its cgroup", "MiB", 0)
	before, err := available()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.ours.up(n); err != nil {
		return err
	}
	took.add(sandboxctlName, milliseconds(time.Since(began))/float64(n))
	if err := sleep(b.ctx, 10*time.Second); err != nil {
		return err
	}
	after, err1 := available()
	all, err2 := processes()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	mib, err := pss(b.ours.holds(all))
	if err != nil {
		return err
	}
	size.add(sandboxctlName, mib/float64(n))
	free.add(sandboxctlName, (before-after)/float64(n))
	charged, err := b.ours.charged(n)
	if err != nil {
		return err
	}
	charge.add(sandboxctlName, charged/float64(n))
	b.progress("%d sandboxes: done", n)
	return b.ours.clear()
}

// charged sums what the kernel counts for the cgroups of sandboxes, in MiB.
func (o *ours) charged(n int) (float64, error) {
	var dirs []string
	for i := range n {
		rec, _, err := o.store.Get(oursID(i))
		if err != nil || rec == nil {
			return 0, fmt.Errorf("%s has no record: %w", oursID(i), err)
		}
		dirs = append(dirs, rec.Cgroups...)
	}
	return chargedTo(dirs)
}

// chargedTo sums what the kernel counts for cgroups, in MiB.
func chargedTo(dirs []string) (float64, error) {
	var sum int64
	for _, dir := range dirs {
		for _, f := range []string{"memory.usage_in_bytes", "memory.current"} {
			text, err := os.ReadFile(filepath.Join(dir, f))
			if err != nil {
				continue // the other version of cgroups, or another controller
			}
			bytes, err := field("x "+string(text), "x")
			if err != nil {
				return 0, err
			}
			sum += bytes
		}
	}
	return float64(sum) / (1 << 20), nil
}
