// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/fits"
	"sandboxctl.dev/reconcile/reconciletest"
)

const mib = 1 << 20

// onDisk is a manifest that asks for so many mebibytes of the disk, 0 for the default.
func onDisk(name, command string, size int64, change func(*desired.Spec)) *desired.Entry {
	return reconciletest.Entry(name, command, func(s *desired.Spec) {
		s.Volumes = []desired.Volume{{Name: "d", MountPath: "/d", EmptyDir: &desired.EmptyDir{Medium: desired.MediumDisk, Size: scalar.Bytes(size * mib)}}}
		if change != nil {
			change(s)
		}
	})
}

// A sandbox that runs is not stopped for one that the disk has no room for; it is when there
// is some, and what others are promised by the same plan counts.
func TestPlanRoom(t *testing.T) {
	t.Parallel()
	disk := room.Disk{Total: 2000 * mib, Free: 200 * mib} // 100 of it are kept for logs
	place := func(written, left int64) fits.Place { return fits.Place{Written: written * mib, Left: left * mib} }
	small := onDisk("web", "a", 50, nil)
	grown := func(size int64) *desired.Entry { return onDisk("web", "a", size, nil) }
	stop := "destroy web SpecChanged graceful"
	ended := func(e *desired.Entry, reason string) actual.Observed {
		o := stopped(e, 0)
		o.Record.Ending = &actual.Ending{Reason: reason}
		o.Record.App().LastExit = nil
		return o
	}
	restart := actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "t"}
	for name, c := range map[string]struct {
		want     []*desired.Entry
		have     []actual.Observed
		places   map[string]fits.Place
		busy     string
		requests []actual.Request
		bounds   desired.Bounds
		full     string
		unseen   bool // nothing is known of the disk
		plan     string
		why      string // web is delayed
		waits    string // another one that is
	}{
		"it fits":                          {want: []*desired.Entry{grown(100)}, have: []actual.Observed{running(small)}, plan: stop},
		"it does not":                      {want: []*desired.Entry{grown(101)}, have: []actual.Observed{running(small)}, why: "it asks for 101Mi, 100Mi are free beside what is kept for logs, and other sandboxes may still write 0Mi; ask for less, or make room"},
		"what it has written is free then": {want: []*desired.Entry{grown(140)}, have: []actual.Observed{running(small)}, places: map[string]fits.Place{"web": place(40, 10)}, plan: stop},
		"what others may write is not":     {want: []*desired.Entry{grown(90)}, have: []actual.Observed{running(small)}, places: map[string]fits.Place{"web": place(0, 50), "lost": place(500, 11)}, why: "other sandboxes may still write 11Mi"},
		"a restart that is asked for":      {want: []*desired.Entry{small}, have: []actual.Observed{running(small)}, places: map[string]fits.Place{"lost": place(0, 60)}, requests: []actual.Request{restart}, why: "it asks for 50Mi"},
		"a restart that fits":              {want: []*desired.Entry{small}, have: []actual.Observed{running(small)}, requests: []actual.Request{restart}, plan: "destroy web RestartRequested graceful"},
		"nothing to do":                    {want: []*desired.Entry{small}, have: []actual.Observed{running(small)}, places: map[string]fits.Place{"lost": place(0, 500)}},
		"without a place":                  {want: []*desired.Entry{reconciletest.Entry("web", "a", nil)}, have: []actual.Observed{running(small)}, places: map[string]fits.Place{"lost": place(0, 500)}, plan: stop},
		"the default of the policy":        {want: []*desired.Entry{grown(0)}, have: []actual.Observed{running(small)}, bounds: desired.Bounds{DefaultDiskSize: 101 * mib}, why: "it asks for 101Mi"},
		"the default without a policy":     {want: []*desired.Entry{grown(0)}, have: []actual.Observed{running(small)}, why: "it asks for 1024Mi"},
		"suspended":                        {want: []*desired.Entry{onDisk("web", "a", 500, func(s *desired.Spec) { s.Suspend = true })}, have: []actual.Observed{running(small)}, plan: "destroy web Suspended graceful"},
		"removed":                          {have: []actual.Observed{running(small)}, plan: "destroy web ManifestRemoved graceful"},
		"not seen":                         {want: []*desired.Entry{grown(500)}, have: []actual.Observed{running(small)}, unseen: true, plan: stop},
		"a full disk":                      {want: []*desired.Entry{grown(60)}, have: []actual.Observed{running(small)}, full: "the disk is full", why: "the disk is full"},
		"two, and room for one": {
			want: []*desired.Entry{onDisk("app", "b", 60, nil), grown(60)}, have: []actual.Observed{running(onDisk("app", "a", 10, nil)), running(small)},
			places: map[string]fits.Place{"app": place(0, 10), "web": place(0, 40)},
			plan:   "destroy app SpecChanged graceful", why: "other sandboxes may still write 60Mi",
		},
		"a new one beside it": {
			want: []*desired.Entry{onDisk("app", "a", 60, nil), grown(60)}, have: []actual.Observed{running(small)},
			plan: "create app New", why: "other sandboxes may still write 60Mi",
		},
		"one that is being started": {
			want: []*desired.Entry{onDisk("app", "a", 60, nil), grown(60)}, have: []actual.Observed{running(small)}, busy: "app",
			why: "other sandboxes may still write 60Mi",
		},
		"one that was stopped for it": {
			want: []*desired.Entry{grown(60), onDisk("xyz", "b", 60, nil)}, have: []actual.Observed{running(small), ended(onDisk("xyz", "a", 10, nil), actual.ReasonSpecChanged)},
			plan: "create xyz SpecChanged", why: "other sandboxes may still write 60Mi",
		},
		"one that is being stopped for it": {
			want: []*desired.Entry{grown(60), onDisk("xyz", "b", 60, nil)}, have: []actual.Observed{running(small), running(onDisk("xyz", "a", 10, nil))}, busy: "xyz",
			places: map[string]fits.Place{"web": place(0, 50), "xyz": place(3, 7)}, why: "other sandboxes may still write 60Mi",
		},
		"a new one beside one that was stopped": {
			want: []*desired.Entry{onDisk("app", "a", 60, nil), grown(60)}, have: []actual.Observed{ended(small, actual.ReasonSpecChanged)},
			plan: "create web SpecChanged", waits: "app",
		},
		"one that has ended": {
			want: []*desired.Entry{grown(60), onDisk("xyz", "a", 60, func(s *desired.Spec) { s.RestartPolicy = desired.RestartNever })},
			have: []actual.Observed{running(small), func() actual.Observed {
				o := ended(onDisk("xyz", "a", 60, func(s *desired.Spec) { s.RestartPolicy = desired.RestartNever }), actual.ReasonExited)
				o.Record.App().Completed = true
				return o
			}()},
			plan: stop,
		},
	} {
		in := input(true, c.want, c.have...)
		in.Desired.Policy = bounded{c.bounds}
		in.Actual.Requests, in.Actual.DiskFull = c.requests, c.full
		if c.busy != "" {
			in.Operations = map[string]reconcile.Operation{c.busy: {Op: reconcile.OpCreate}}
		}
		if !c.unseen {
			in.Room = &fits.Room{Disk: disk, Places: c.places}
		}
		in.Policy.AllowMassDelete = true
		plan := reconcile.Compute(in)
		if got := strings.TrimSuffix(strings.TrimSuffix(show(plan), "wake"), "; "); got != c.plan {
			t.Errorf("%s: %q, expected %q", name, got, c.plan)
		}
		if c.waits != "" && !slices.ContainsFunc(plan.Delayed, func(d reconcile.Delayed) bool {
			return d.Name == c.waits && d.Action.Reason == actual.ReasonDiskPressure
		}) {
			t.Errorf("%s: %s does not wait: %+v", name, c.waits, plan.Delayed)
		}
		i := slices.IndexFunc(plan.Delayed, func(d reconcile.Delayed) bool { return d.Name == "web" })
		if c.why == "" {
			if i >= 0 {
				t.Errorf("%s: delayed: %+v", name, plan.Delayed[i])
			}
			continue
		}
		if i < 0 {
			t.Errorf("%s: not delayed", name)
			continue
		}
		if d := plan.Delayed[i]; !strings.Contains(d.Why, c.why) || d.Action.Reason != actual.ReasonDiskPressure || d.PreconditionFailed != (c.full == "") {
			t.Errorf("%s: %+v, expected %q", name, d, c.why)
		}
		// It is looked at again, and its status says what is missing.
		if plan.Wake.IsZero() {
			t.Errorf("%s: nobody looks again", name)
		}
		s := statusOf(t, in, plan, "web")
		if cond := s.Condition(reconcile.CondReconciling); s.Phase != reconcile.PhaseRunning || cond.Status != reconcile.True || cond.Reason != actual.ReasonDiskPressure || !strings.Contains(cond.Message, c.why) {
			t.Errorf("%s: %s %+v", name, s.Phase, cond)
		}
	}
}

func statusOf(t *testing.T, in reconcile.Input, plan reconcile.Plan, name string) reconcile.Status {
	t.Helper()
	for _, s := range reconcile.Statuses(in, plan) {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no status of %s", name)
	return reconcile.Status{}
}

// bounded is a policy that allows everything, and has bounds.
type bounded struct{ bounds desired.Bounds }

func (bounded) Check(*desired.Sandbox) []desired.FieldError       { return nil }
func (bounded) CheckFiles([]desired.FileRef) []desired.FieldError { return nil }
func (bounded) CheckVolume(string) []desired.FieldError           { return nil }
func (bounded) CheckNetwork(string) []desired.FieldError          { return nil }
func (bounded) Source() string                                    { return "built in" }
func (b bounded) Digest() string                                  { return fmt.Sprint(b.bounds) }
func (b bounded) Bounds() desired.Bounds                          { return b.bounds }

// The disk is looked at where something is about to be stopped for a start, and only there.
func TestRoomMatters(t *testing.T) {
	t.Parallel()
	web := onDisk("web", "a", 50, nil)
	restart := actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "t"}
	for name, c := range map[string]struct {
		want     *desired.Entry
		have     actual.Observed
		requests []actual.Request
		matters  bool
	}{
		"as it is to be":       {want: web, have: running(web)},
		"changed":              {want: onDisk("web", "b", 50, nil), have: running(web), matters: true},
		"a restart":            {want: web, have: running(web), requests: []actual.Request{restart}, matters: true},
		"a restart of another": {want: web, have: running(web), requests: []actual.Request{{Kind: actual.RequestRestart, Name: "other"}}},
		"another request":      {want: web, have: running(web), requests: []actual.Request{{Kind: actual.RequestRepair, Name: "web"}}},
		"nothing on the disk":  {want: reconciletest.Entry("web", "b", nil), have: running(web)},
		"not running":          {want: onDisk("web", "b", 50, nil), have: stopped(web, 1)},
		"stopped for a start": {want: onDisk("web", "b", 50, nil), have: func() actual.Observed {
			o := stopped(web, 0)
			o.Record.Ending = &actual.Ending{Reason: actual.ReasonInputChanged}
			return o
		}(), matters: true},
		"dead":           {want: onDisk("web", "b", 50, nil), have: func() actual.Observed { o := running(web); o.Sentry = process.Dead; return o }(), matters: true},
		"only on record": {have: running(web), requests: []actual.Request{restart}, matters: true},
	} {
		var want []*desired.Entry
		if c.want != nil {
			want = append(want, c.want)
		}
		in := input(false, want, c.have)
		in.Actual.Requests = c.requests
		if got := fits.Matters(in.Desired, in.Actual, in.LastGood, in.Files); got != c.matters {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// A Network document that changes stops nothing for which there is no room afterwards.
func TestRoomNetworkChanged(t *testing.T) {
	t.Parallel()
	on := func(name string, size int64) *desired.Entry {
		return onDisk(name, "a", size, func(s *desired.Spec) { s.Network = networks.Network{Mode: networks.Bridge} })
	}
	at := func(o actual.Observed) actual.Observed {
		o.Record.Attachments = []actual.Attachment{{Network: "default", MTU: 1500, Default: true, Subnet4: netip.MustParsePrefix("10.208.0.0/20")}}
		return o
	}
	web := on("web", 50)
	in := input(true, []*desired.Entry{web}, at(running(web)))
	if fits.Matters(in.Desired, in.Actual, in.LastGood, in.Files) {
		t.Error("the disk is looked at where nothing has changed")
	}
	in = withNetwork(t, in, "default", "{mtu: 1400}")
	if !fits.Matters(in.Desired, in.Actual, in.LastGood, in.Files) {
		t.Error("nobody looks at the disk")
	}
	in.Room = &fits.Room{Disk: room.Disk{Total: 2000 * mib, Free: 140 * mib}}
	plan := reconcile.Compute(in)
	if len(plan.Actions) > 0 || len(plan.Delayed) != 1 || plan.Delayed[0].Action.Reason != actual.ReasonDiskPressure || !strings.Contains(plan.Delayed[0].Why, "it asks for 50Mi, 40Mi are free") {
		t.Errorf("without room: %+v", plan)
	}
	in.Room.Disk.Free = 150 * mib
	if got := show(reconcile.Compute(in)); got != "destroy web NetworkChanged graceful" {
		t.Errorf("with room: %q", got)
	}

	// One that was stopped for it has its room before a new one.
	was := at(stopped(web, 0))
	was.Record.Ending = &actual.Ending{Reason: actual.ReasonNetworkChanged}
	was.Record.App().LastExit = nil
	in = withNetwork(t, input(true, []*desired.Entry{on("app", 60), web}, was), "default", "{mtu: 1400}")
	if !fits.Matters(in.Desired, in.Actual, in.LastGood, in.Files) {
		t.Error("nobody looks at the disk between stop and start")
	}
	in.Room = &fits.Room{Disk: room.Disk{Total: 2000 * mib, Free: 200 * mib}}
	plan = reconcile.Compute(in)
	if got := strings.TrimSuffix(show(plan), "; wake"); !strings.HasPrefix(got, "create web ") || len(plan.Delayed) != 1 || plan.Delayed[0].Name != "app" {
		t.Errorf("stopped for it: %q, %+v", got, plan.Delayed)
	}
}
