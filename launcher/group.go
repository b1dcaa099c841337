// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/setup"
)

// createGroup makes the cgroup of what is on record: where the client of a
// container wants it, or among those of all sandboxes. On error nothing of it is
// left.
func (l *Launcher) createGroup(rec *actual.Record, st *setup.Setup) (*cgroup.Group, error) {
	own := rec.Name + "-" + rec.UID
	if rec.App().OCI == nil {
		group, unenforced, err := l.cgroups.Create(own, st.Limits, st.Defaults)
		if err != nil {
			return nil, err
		}
		rec.Cgroups = group.Dirs()
		for _, u := range unenforced {
			reason := actual.WarningResourceNotEnforced
			if u.Default {
				reason = actual.WarningDefaultNotEnforced
			}
			l.opts.Log.Warn("limit not enforced", "sandbox", rec.Name, "resource", u.Resource, "reason", reason, "err", u.Why)
			rec.Warnings = append(rec.Warnings, actual.Warning{Reason: reason, Message: u.Resource + ": " + u.Why})
		}
		return group, nil
	}
	place, err := cgroup.ParsePlace(st.CgroupsPath, own)
	if err != nil {
		return nil, err
	}
	group, err := l.cgroups.CreateAt(own, place, st.Resources)
	if err != nil {
		return nil, err
	}
	rec.Cgroups, rec.CgroupPlace = group.Dirs(), string(place)
	return group, nil
}

// checkThawed refuses a group in which nothing would run.
func checkThawed(g *cgroup.Group) error {
	by, err := g.FrozenBy()
	if err != nil {
		return err
	}
	if by != "" {
		return fmt.Errorf("the cgroup %s is frozen, so that nothing in it can run; thaw it first", by)
	}
	return nil
}

// thaw lets processes that were killed die: with cgroup v1 a frozen one does not,
// and with neither version does a gofer see that its sentry is gone. It returns
// the group above that keeps them frozen, which is not ours to thaw, "" if there
// is none.
func (l *Launcher) thaw(rec *actual.Record) (frozenBy string) {
	group, err := l.Group(rec)
	if err != nil {
		return ""
	}
	defer group.Close()
	if err := group.Thaw(); err != nil {
		l.opts.Log.Warn("cgroup not thawed", "sandbox", rec.Name, "err", err)
	}
	return l.FrozenBy(rec)
}

// FrozenBy returns the group that keeps the processes of a record frozen, "" if
// there is none or that can't be told.
func (l *Launcher) FrozenBy(rec *actual.Record) string {
	group, err := l.Group(rec)
	if err != nil {
		return ""
	}
	defer group.Close()
	by, err := group.FrozenBy()
	if err != nil {
		return ""
	}
	return by
}

// Group opens the cgroup of a record.
func (l *Launcher) Group(rec *actual.Record) (*cgroup.Group, error) {
	group, err := l.cgroups.OpenRecorded(cgroup.Place(rec.CgroupPlace), rec.Cgroups)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	return group, nil
}

// leftoverGroup is Group for what is to be removed. A create that died before it
// had written down what it made has left it under the name that it always has.
func (l *Launcher) leftoverGroup(rec *actual.Record, dirs []string) (*cgroup.Group, error) {
	if len(rec.Cgroups) == 0 && rec.App().OCI == nil {
		return l.cgroups.OpenOwn(rec.Name + "-" + rec.UID)
	}
	return l.cgroups.OpenRecorded(cgroup.Place(rec.CgroupPlace), dirs)
}
