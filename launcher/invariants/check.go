// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/procfs"
	"sandboxctl.dev/launcher/salvage"
)

// Kind of a Violation.
type Kind string

// The kinds of violations.
const (
	// OrphanProcess is a sentry, a gofer or a member of a sandbox's cgroup that
	// is on no record.
	OrphanProcess Kind = "OrphanProcess"
	// DuplicateProcess is a second live sentry or gofer of one name.
	DuplicateProcess Kind = "DuplicateProcess"
	// LeftoverCgroup is a cgroup of a sandbox that has none, or not this one.
	LeftoverCgroup Kind = "LeftoverCgroup"
	// LeftoverTemp is a temporary file of the atomic writer.
	LeftoverTemp Kind = "LeftoverTemp"
	// LeftoverSocket is the control socket of a stopped sandbox.
	LeftoverSocket Kind = "LeftoverSocket"
	// LeftoverDirectory is a directory without a record.
	LeftoverDirectory Kind = "LeftoverDirectory"
	// LeftoverTrash is something in the trash.
	LeftoverTrash Kind = "LeftoverTrash"
	// LeftoverForeign is something beside the logs of deleted sandboxes.
	LeftoverForeign Kind = "LeftoverForeign"
	// LeftoverMount is a mount in the state directory, or over it.
	LeftoverMount Kind = "LeftoverMount"
	// LeftoverNetwork is a network that a stopped sandbox did not give back.
	LeftoverNetwork Kind = "LeftoverNetwork"
	// LeftoverImage is an image that was not finished.
	LeftoverImage Kind = "LeftoverImage"
	// MissingImage is an image that a sandbox runs from and the store has not.
	MissingImage Kind = "MissingImage"
	// LeftoverVolume is a named volume that was not finished.
	LeftoverVolume Kind = "LeftoverVolume"
	// LeftoverSnapshot is a snapshot that was not finished.
	LeftoverSnapshot Kind = "LeftoverSnapshot"
	// MissingVolume is a named volume that a sandbox runs with and that is not there.
	MissingVolume Kind = "MissingVolume"
	// DuplicateAddress is an address that two records have.
	DuplicateAddress Kind = "DuplicateAddress"
	// LeftoverLink is the link of a stopped sandbox.
	LeftoverLink Kind = "LeftoverLink"
	// Unsettled is a record in a phase between two others, or one that says of
	// a dead process that it runs. Only with Options.Settled.
	Unsettled Kind = "Unsettled"
)

// Violation is something that must not be.
type Violation struct {
	Kind Kind `json:"kind"`
	// Message says what it is and whose. File names in it are as found on disk.
	Message string `json:"message"`
}

func (v Violation) String() string { return string(v.Kind) + ": " + v.Message }

// Err makes one error of violations, nil if there are none.
func Err(vs []Violation) error {
	errs := make([]error, len(vs))
	for i, v := range vs {
		errs[i] = errors.New(v.String())
	}
	return errors.Join(errs...)
}

// Options of a Check. The zero value suits a state directory that is in use.
type Options struct {
	// Settled says that nothing is under way: no daemon works, or it has
	// converged. What comes and goes during an operation is a violation then,
	// and a record in a phase between two others is one.
	Settled bool
	// Past are the cgroup names (see Groups) of sandboxes that this state
	// directory had at some time. Their cgroups are looked for although no
	// record tells of them any more.
	Past []string
}

// confirmAfter is how long something must be there to be a violation, where
// operations may be under way.
const confirmAfter = 200 * time.Millisecond

// Check looks at a state directory and at the host. The error says that the look
// itself failed; what it found is in the violations, sorted.
//
// Without Options.Settled what an operation makes and takes away again is
// passed over: a violation other than DuplicateProcess is one that was found
// twice, 200 ms apart.
func Check(ctx context.Context, store *actual.Store, opts Options) ([]Violation, error) {
	found, err := look(ctx, store, opts)
	if err != nil || opts.Settled || !slices.ContainsFunc(found, transient) {
		return found, err
	}
	wait := time.NewTimer(confirmAfter)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("look twice: %w", context.Cause(ctx))
	case <-wait.C:
	}
	again, err := look(ctx, store, opts)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(v Violation) bool { return transient(v) && !slices.Contains(again, v) }), nil
}

// Duplicates is the cheapest part of Check: the sentries and gofers that are one too
// many now. It may be called while operations are under way.
func Duplicates(store *actual.Store) ([]Violation, error) {
	v, err := begin(store, Options{})
	if err != nil {
		return nil, err
	}
	v.processes()
	return slices.DeleteFunc(v.found, transient), nil
}

// transient says of a violation that an operation under way may look like it.
func transient(v Violation) bool { return v.Kind != DuplicateProcess }

// Groups are the cgroup names of the sandboxes on record now, for Options.Past
// of a later Check.
func Groups(store *actual.Store) ([]string, error) {
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	out := make([]string, len(list.Records))
	for i, r := range list.Records {
		out[i] = string(cgroup.Own(r.Name, r.UID))
	}
	return out, nil
}

// view is one look.
type view struct {
	opts        Options
	list        *actual.Listing
	by          map[string]*actual.Record
	quarantined map[string]bool // names whose records can't be read
	tree        *tree
	procs       []salvage.Found
	found       []Violation
}

func (v *view) add(k Kind, format string, args ...any) {
	v.found = append(v.found, Violation{k, fmt.Sprintf(format, args...)})
}

// begin reads what there is.
func begin(store *actual.Store, opts Options) (_ *view, err error) {
	root, err := store.Root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	v := &view{opts: opts, by: map[string]*actual.Record{}, quarantined: map[string]bool{}}
	if v.tree, err = readTree(root); err != nil {
		return nil, err
	}
	if v.procs, err = findProcesses(v.tree); err != nil {
		return nil, err
	}
	// After the processes: a process that was past its gate by then is recorded now.
	if v.list, err = store.List(); err != nil {
		return nil, err
	}
	for _, r := range v.list.Records {
		v.by[r.Name] = r
	}
	for _, h := range v.list.Quarantined {
		v.quarantined[h.Name] = true
	}
	return v, nil
}

func look(ctx context.Context, store *actual.Store, opts Options) ([]Violation, error) {
	v, err := begin(store, opts)
	if err != nil {
		return nil, err
	}
	v.files()
	v.records()
	v.processes()
	if err := errors.Join(v.waiting(ctx, store), v.groups(store), v.mounts(store.Path()), v.images(store.Path()), v.volumes(ctx, store), v.snapshots(store), v.networks()); err != nil {
		return nil, err
	}
	slices.SortFunc(v.found, func(a, b Violation) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(v.found), nil
}

func (v *view) files() {
	for _, p := range v.tree.temps {
		v.add(LeftoverTemp, "temporary file %s", p)
	}
	for _, n := range v.list.Aborted {
		v.add(LeftoverDirectory, "sandboxes/%s has no record", n)
	}
	for _, n := range v.tree.trash {
		v.add(LeftoverTrash, "trash/%s", n)
	}
	for _, p := range v.tree.foreign {
		v.add(LeftoverForeign, "%s is not the logs of a deleted sandbox", p)
	}
}

func (v *view) records() {
	for _, r := range v.list.Records {
		if r.Phase == actual.PhaseStopped {
			if v.tree.sockets[r.Name] {
				v.add(LeftoverSocket, "control socket of %s, which is stopped", r.Name)
			}
			if r.Network != nil {
				v.add(LeftoverNetwork, "%s is stopped and has not restored %s", r.Name, r.Network.Path)
			}
			if r.CNI != nil {
				v.add(LeftoverNetwork, "%s is stopped and has not given back what plugins of CNI made on %s", r.Name, r.CNI.Network)
			}
		}
		if v.opts.Settled {
			v.settled(r)
		}
	}
}

// settled checks that a record says what is.
func (v *view) settled(r *actual.Record) {
	switch r.Phase {
	case actual.PhaseCreated, actual.PhaseRunning:
		if r.App().OCI != nil {
			return // the end of a container is written down when its client asks
		}
		for _, p := range []struct {
			what string
			id   *process.Identity
		}{{"sentry", r.Sentry}, {"gofer", r.Gofer}} {
			if p.id == nil || !isAlive(*p.id) {
				v.add(Unsettled, "%s is %s and its %s is dead", r.Name, r.Phase, p.what)
			}
		}
	case actual.PhaseStopped:
		for _, id := range []*process.Identity{r.Sentry, r.Gofer} {
			if id != nil {
				v.add(Unsettled, "%s is stopped and pid %d is on its record", r.Name, id.PID)
			}
		}
	default:
		v.add(Unsettled, "%s is %s", r.Name, r.Phase)
	}
}

func isAlive(id process.Identity) bool {
	p, err := process.Open(id)
	if err != nil {
		return false
	}
	defer p.Close()
	return p.Alive() == process.Alive
}

// underWay says of a sandbox that its processes may be about to be recorded: they
// wait at their gates, and leave if that does not come about.
func (v *view) underWay(name string) bool {
	r := v.by[name]
	return !v.opts.Settled && r != nil && r.Phase == actual.PhaseCreating
}

// recorded says whether a process is one of the record's.
func recorded(r *actual.Record, pid int) bool {
	for _, id := range []*process.Identity{r.Sentry, r.Gofer} {
		// Open compares its inode: another process with the number is none.
		if id != nil && id.PID == pid && isAlive(*id) {
			return true
		}
	}
	return false
}

func (v *view) processes() {
	count := map[string][]int{}
	for i := range v.procs {
		p := &v.procs[i]
		if !isAlive(p.Identity) {
			continue // it has ended since it was seen
		}
		pid := p.Identity.PID
		key := p.Role + " of " + p.Sandbox
		count[key] = append(count[key], pid)
		r := v.by[p.Sandbox]
		if v.quarantined[p.Sandbox] || v.underWay(p.Sandbox) || r != nil && recorded(r, pid) {
			continue
		}
		v.add(OrphanProcess, "pid %d is a %s of %s and on no record", pid, p.Role, p.Sandbox)
	}
	for key, pids := range count {
		// All of them were alive at the same time: after the last was found.
		if len(pids) > 1 {
			slices.Sort(pids)
			v.add(DuplicateProcess, "%d at once: %s, pids %v%s", len(pids), key, pids, v.describe(pids))
		}
	}
}

// describe is what is known of processes that are one too many.
func (v *view) describe(pids []int) string {
	var b strings.Builder
	for _, pid := range pids {
		if status, err := procfs.Read(pid, "status"); err == nil {
			fmt.Fprintf(&b, "; %d: State %s; %d: PPid %s", pid, procfs.Field(status, "State"), pid, procfs.Field(status, "PPid"))
		}
	}
	return b.String()
}

func (v *view) groups(store *actual.Store) error {
	host, err := cgroup.Detect()
	if err != nil {
		return fmt.Errorf("detect cgroups: %w", err)
	}
	past := map[cgroup.Place]string{} // and whose they were
	for _, p := range v.opts.Past {
		past[cgroup.Place(p)] = "a sandbox that is gone"
	}
	for _, n := range v.tree.trash {
		if r := trashed(store, n); r != nil {
			past[cgroup.Own(r.Name, r.UID)] = r.Name + ", which is in the trash"
		}
	}
	for _, r := range v.list.Records {
		place := cgroup.Own(r.Name, r.UID)
		delete(past, place)
		if r.CgroupPlace != "" {
			place = cgroup.Place(r.CgroupPlace)
		}
		dirs, err := host.Find(place)
		if err != nil {
			return err
		}
		for _, d := range dirs {
			switch {
			case r.Phase == actual.PhaseStopped && r.CgroupPlace == "":
				v.add(LeftoverCgroup, "%s of %s, which is stopped", d, r.Name)
			case !slices.Contains(r.Cgroups, d) && !v.underWay(r.Name) && r.Phase != actual.PhaseStopped:
				v.add(LeftoverCgroup, "%s of %s is not on its record", d, r.Name)
			}
		}
		v.members(r, dirs)
	}
	for place, whose := range past {
		dirs, err := host.Find(place)
		if err != nil {
			return err
		}
		for _, d := range dirs {
			v.add(LeftoverCgroup, "%s of %s", d, whose)
		}
	}
	return nil
}

// members checks that every process in the cgroup of a sandbox belongs to its sentry
// or gofer.
func (v *view) members(r *actual.Record, dirs []string) {
	if v.underWay(r.Name) {
		return
	}
	for _, pid := range members(dirs) {
		if !slices.ContainsFunc(lineage(pid), func(p int) bool { return recorded(r, p) }) && exists(pid) {
			v.add(OrphanProcess, "pid %d is in the cgroup of %s and on no record", pid, r.Name)
		}
	}
}

func (v *view) mounts(path string) error {
	below, err := mountinfo.GetMounts(mountinfo.PrefixFilter(v.tree.path))
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	for _, m := range below {
		if m.Mountpoint != v.tree.path {
			v.add(LeftoverMount, "something is mounted at %s", m.Mountpoint)
		}
	}
	info, err := os.Stat(path)
	if err != nil || !os.SameFile(info, v.tree.info) {
		v.add(LeftoverMount, "%s does not lead to the state directory any more: something was mounted over it, or it was moved", path)
	}
	return nil
}
