// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile/attached"
	"sandboxctl.dev/reconcile/backoff"
	"sandboxctl.dev/reconcile/contention"
	"sandboxctl.dev/reconcile/declared"
	"sandboxctl.dev/reconcile/endings"
	"sandboxctl.dev/reconcile/fits"
	"sandboxctl.dev/reconcile/lifetime"
	"sandboxctl.dev/reconcile/namespaces"
	"sandboxctl.dev/reconcile/needs"
	"sandboxctl.dev/reconcile/places"
	"sandboxctl.dev/reconcile/pulling"
)

// Policy is what the daemon allows.
type Policy struct {
	// A plan that would remove more than MaxRemoveShare of all sandboxes, and
	// at least MaxRemoveCount, because their manifests are missing, waits for
	// approval.
	MaxRemoveShare float64 `json:"maxRemoveShare"`
	MaxRemoveCount int     `json:"maxRemoveCount"`
	// AllowMassDelete turns that off.
	AllowMassDelete bool `json:"allowMassDelete,omitempty"`
}

// RemovalWindow is how long a removal counts: what takes files away one after
// the other (a slow sync, a checkout) is not several small wishes.
const RemovalWindow = time.Minute

// DefaultPolicy holds the removal of more than half, and at least 3.
func DefaultPolicy() Policy { return Policy{MaxRemoveShare: 0.5, MaxRemoveCount: 3} }

// Input is everything a plan depends on.
type Input struct {
	Desired *desired.Snapshot
	Actual  *actual.Snapshot
	// LastGood are the recorded manifests of sandboxes that Desired does not
	// have. They are used while their absence is no evidence.
	LastGood map[string]*desired.Entry
	// Denied are those of LastGood that the host policy does not allow now, or
	// while it can't be told what it allows, all of them; with why. What runs of
	// them keeps running, and nothing of them is started.
	Denied map[string]string
	Progress
	// Networks are the network namespaces that manifests name.
	Networks map[string]namespaces.Namespace
	// Files are the files of the host and the documents that manifests refer to, by path.
	Files map[string]needs.File
	// Images are what the store has.
	Images Images
	// Volumes are the named volumes that manifests declare, by name.
	Volumes map[string]declared.Found
	// Room is what is known of the disk of the state, nil if nobody needs to know.
	Room *fits.Room
	Now  time.Time
	// Boot is CLOCK_BOOTTIME at Now: no step of the wall clock changes it.
	Boot time.Duration
	// Read is when the manifests had been read. Nothing is decided by it.
	Read   time.Time
	Policy Policy
	// Removals are the times of the last removals that nobody has approved.
	Removals []time.Time
}

// Plan is what there is to do now.
type Plan struct {
	// Actions are sorted by name, at most one per name.
	Actions []Action
	// Delayed are actions that can't be begun yet, of other names.
	Delayed []Delayed
	// Cancel are the operations under way that are to end.
	Cancel []Cancel
	// Pulls are the images to fetch, by reference. One under way that is not in it is to
	// end.
	Pulls []pulling.Pull
	// PullsLater are the references of pulls that failed and are tried again later.
	PullsLater []string
	// Pins are the images that pools keep for claims, PoolsWait why others have none yet. Both
	// are by the full name of the pool.
	Pins      []pulling.Done
	PoolsWait []Delayed
	// Volumes are named volumes to make or to change, VolumesLater those that failed and are
	// tried again later, by name.
	Volumes      []declared.Action
	VolumesLater []declared.Later
	// Guard is set when removals wait for approval.
	Guard *Guard
	// Wake is when something becomes due that is not in Actions yet; zero if
	// nothing will without an event.
	Wake time.Time
}

// Action is one operation and why.
type Action struct {
	Op   Op
	Name string
	Lane Lane
	// Due is since when it could have been begun; zero if that is not known.
	Due time.Time
	// Entry is what to create, or whose files to replace.
	Entry *desired.Entry
	// Volumes are those whose files a refresh replaces.
	Volumes []string
	// Image is the digest of the image that a create takes, "" if its root is none.
	Image string
	// Ending is how to destroy, also what can't be resumed.
	Ending actual.Ending
	// Forget says that the record of what is destroyed goes too, in the same operation:
	// its manifest is gone, and it has no grace period in which that could come back.
	Forget bool
	// Retire says of a Forget that the record stays: the manifest is still there, and must not
	// be started again.
	Retire bool
	// Start says of a resumed create that its application is to be started, if it
	// has not been.
	Start bool
	// Request is what an operator asked for and the action carries out, whole: a
	// restart, with its checkpoint, or a recovery. What happens to the request
	// meanwhile does not change what was decided.
	Request *actual.Request
	Reason  string
	// Approved says of a removal that it is no accident: an operator has ordered or
	// approved it, or the sandbox is a job that has finished.
	Approved bool
}

// Compute returns what to do. It is a pure function: the same input gives the
// same plan. It does not allocate when there is nothing to do.
func Compute(in Input) Plan {
	c := computation{in: in, room: fits.Begin(in.Room, in.Desired, in.Actual, in.Operations)}
	c.guard()
	c.merge()
	c.aborted()
	c.repairs()
	c.cancels()
	c.poolImages()
	c.keepPulls()
	c.volumes()
	return c.plan
}

type computation struct {
	in      Input
	plan    Plan
	guarded bool
	created int // by this plan, of names without a record
	room    *fits.Sum
	holders *contention.Index // made when the first start asks
	pools   *places.Pools     // made when the first claim asks
}

// tooMany says whether the host policy has no room for one more sandbox.
func tooMany(in *Input, more int) bool {
	return places.HostFull(in.Actual, maps.Keys(in.Operations), more, in.Desired.Bounds().MaxSandboxes)
}

// needsPlace delays the start of a claim whose pool is missing or full, and the stop for such a start.
func (c *computation) needsPlace(a *Action) bool {
	e := c.starts(a)
	if e == nil || e.Claim == nil {
		return false
	}
	if c.pools == nil {
		c.pools = places.Of(c.in.Desired, c.in.LastGood, c.in.Actual, c.in.Starts)
	}
	reason, why := c.pools.Waits(e)
	if why != "" {
		a.Reason = reason
		c.delayForHost(*a, why, reason != actual.ReasonPoolFull)
	}
	return why != ""
}

// merge walks the two sorted lists side by side.
func (c *computation) merge() {
	want, have := c.in.Desired.Entries, c.in.Actual.Sandboxes
	for i, j := 0, 0; i < len(want) || j < len(have); {
		switch {
		case j >= len(have) || i < len(want) && want[i].Sandbox.Metadata.Name < have[j].Record.Name:
			c.wanted(&want[i])
			i++
		case i >= len(want) || have[j].Record.Name < want[i].Sandbox.Metadata.Name:
			c.unwanted(&have[j])
			j++
		default:
			c.both(&want[i], &have[j])
			i++
			j++
		}
	}
}

// add plans an action, or delays it if something is in its way now.
func (c *computation) add(a Action) {
	a.Lane = laneOf(&a)
	if !c.failedBefore(&a) && !c.needsPlace(&a) && !c.needsNetwork(&a) && !c.needsInputs(&a) && !c.needsRoom(&a) {
		c.plan.Actions = append(c.plan.Actions, a)
		if c.holders != nil && a.Op == OpCreate {
			c.holders.Add(a.Entry)
		}
		c.pools.Take(c.starts(&a))
	}
}

func (c *computation) wakeAt(t time.Time) {
	if c.plan.Wake.IsZero() || t.Before(c.plan.Wake) {
		c.plan.Wake = t
	}
}

// wanted decides on a name without a record.
func (c *computation) wanted(e *desired.Entry) {
	name := e.Sandbox.Metadata.Name
	// A record that can't be read may be the only pointer to a live sandbox of
	// the name: no second one beside it.
	if c.in.busy(name) || places.Quarantined(c.in.Actual, name) || e.Sandbox.Spec.Suspend || c.in.end(e, nil).Over || tooMany(&c.in, c.created) {
		return
	}
	c.created++
	create := Action{Op: OpCreate, Name: name, Entry: e, Request: c.in.request(name), Reason: actual.ReasonNew}
	if !c.needsImage(&create, e, nil) {
		c.add(create)
	}
}

// unwanted decides on a record without a manifest.
func (c *computation) unwanted(o *actual.Observed) {
	rec := o.Record
	if c.in.busy(rec.Name) || Unknown(o) {
		return
	}
	if !c.in.gone(rec) {
		// Absence is not evidence: it keeps its last good manifest. But
		// nothing is started that may have been deleted, where that will be
		// known in a moment or was known before.
		if e := c.in.LastGood[rec.Name]; e != nil && !(stoppedDead(o) && (removalBegun(rec) || c.in.Desired.Reason == desired.ReasonUnsettled)) {
			c.both(e, o)
		}
		return
	}
	approved := c.in.explicit(o) || c.approved(rec.Name)
	if !removalBegun(rec) && c.guarded && !approved {
		return
	}
	if stoppedDead(o) {
		c.add(Action{Op: OpForget, Name: rec.Name, Reason: actual.ReasonManifestRemoved, Approved: approved})
		return
	}
	end := c.stop(c.lastGood(rec), rec, actual.ReasonManifestRemoved)
	c.add(Action{Op: OpDestroy, Name: rec.Name, Reason: actual.ReasonManifestRemoved, Ending: end, Forget: end.Grace <= 0, Approved: approved})
}

// lastGood is what is known of how a sandbox wants to be stopped.
func (c *computation) lastGood(rec *actual.Record) *desired.Entry { return c.in.LastGood[rec.Name] }

// both decides on a name with a manifest and a record.
func (c *computation) both(e *desired.Entry, o *actual.Observed) {
	rec := o.Record
	if c.in.busy(rec.Name) || Unknown(o) {
		return
	}
	switch rec.Phase {
	case actual.PhaseStopping:
		// Begun and not finished: the same again, whatever is wanted since.
		end := actual.Ending{Reason: actual.ReasonInterrupted, Containers: endings.Kept(rec)}
		if rec.Ending != nil {
			end = *rec.Ending
		}
		end.Grace = min(end.Grace, gracePeriod(e)) // unless its author has given it less time since
		c.add(Action{Op: OpDestroy, Name: rec.Name, Reason: end.Reason, Ending: end})
	case actual.PhaseRunning:
		c.running(e, o)
	case actual.PhaseStopped:
		if anyAlive(o) {
			c.interrupted(OpDestroy, rec, false)
			return
		}
		c.stopped(e, rec)
	default:
		// Creating to Starting, and no worker: a crash.
		if o.Exit != nil {
			// The application was started, and how it ended is known.
			c.add(Action{Op: OpDestroy, Name: rec.Name, Reason: endings.Died(o, c.in.Actual.BootID), Ending: endings.Ended(e, o, c.in.Actual.BootID, c.in.Now)})
			return
		}
		if o.Sentry != process.Alive || o.Gofer != process.Alive {
			c.interrupted(OpDestroy, rec, false)
			return
		}
		// Whether its application runs only its sentry can tell. If that can't
		// be asked it starts over. It did not fail.
		c.interrupted(OpResume, rec, sameSpec(rec, e) && !e.Sandbox.Spec.Suspend && !c.in.end(e, rec).Over && c.in.Denied[rec.Name] == "" && (e.Claim == nil || e.Claim.Why == "") && !c.in.restartWanted(rec) && !c.restores(rec))
	}
}

func (c *computation) interrupted(op Op, rec *actual.Record, start bool) {
	c.add(Action{
		Op: op, Name: rec.Name, Reason: actual.ReasonInterrupted, Start: start,
		Ending: actual.Ending{Reason: actual.ReasonInterrupted, Containers: endings.Kept(rec)},
	})
}

func (c *computation) running(e *desired.Entry, o *actual.Observed) {
	rec, spec := o.Record, &e.Sandbox.Spec
	if o.Sentry != process.Alive || o.Gofer != process.Alive {
		c.add(Action{Op: OpDestroy, Name: rec.Name, Reason: endings.Died(o, c.in.Actual.BootID), Ending: endings.Ended(e, o, c.in.Actual.BootID, c.in.Now)})
		return
	}
	if c.over(e, rec) {
		return
	}
	// What the policy does not allow any more is not stopped for a new start.
	if c.in.Denied[rec.Name] != "" {
		return
	}
	var reason string
	var due time.Time
	switch {
	case spec.Suspend:
		reason = actual.ReasonSuspended
	case !sameSpec(rec, e):
		reason = actual.ReasonSpecChanged
	case c.in.restartWanted(rec):
		reason = actual.ReasonRestartRequested
	case namespaces.Replaced(c.in.Networks, e, rec):
		reason = actual.ReasonNetworkReplaced
	case attached.Gone(c.in.Lacks, rec):
		reason = actual.ReasonLinkRemoved
	case c.in.LastGood[rec.Name] == nil && attached.Outdated(c.in.Desired, rec) != "":
		reason = actual.ReasonNetworkChanged
	case c.in.LastGood[rec.Name] == nil && needs.Changed(e, rec, c.in.Files): // or it is left as it is
		reason, due = actual.ReasonInputChanged, needs.Due(rec, c.in.Now)
	default:
		c.refresh(e, rec)
		return
	}
	stop := Action{Op: OpDestroy, Name: rec.Name, Reason: reason, Due: due, Ending: c.stop(e, rec, reason)}
	if stop.Ending.Replace && c.needsImage(&stop, e, rec) {
		return
	}
	c.add(stop)
}

func (c *computation) stopped(e *desired.Entry, rec *actual.Record) {
	if e.Sandbox.Spec.Suspend || c.in.Denied[rec.Name] != "" {
		if order := lifetime.Suspended(rec, endings.Kept(rec)[0]); order != nil && e.Sandbox.Spec.Suspend {
			c.add(Action{Op: OpDestroy, Name: rec.Name, Reason: order.Reason, Ending: *order})
		}
		c.retire(e, rec) // what has finished is given up all the same
		return
	}
	if c.over(e, rec) {
		return
	}
	create := Action{Op: OpCreate, Name: rec.Name, Entry: e}
	switch {
	case c.in.restartWanted(rec):
		create.Reason, create.Request = actual.ReasonRestartRequested, c.in.request(rec.Name)
	case !sameSpec(rec, e):
		create.Reason = actual.ReasonSpecChanged
	case rec.App().Completed && (!lifetime.Expired(rec) || c.in.stale(rec.Name)):
		c.retire(e, rec)
		return
	case rec.App().Completed: // its until is a later one now: nothing from before holds it back
		create.Reason = backoff.Reason(rec)
	case needs.Changed(e, rec, c.in.Files):
		create.Reason, create.Due = actual.ReasonInputChanged, needs.Due(rec, c.in.Now)
	case endings.Stalled(e, rec) != "":
		return
	default:
		create.Due = backoff.Next(&e.Sandbox.Spec.Backoff, rec, c.in.Desired.Bounds().RestartFloor, c.in.Now)
		create.Reason = backoff.Reason(rec)
	}
	if create.Request == nil && rec.CutShort() && rec.RestartToken == c.in.request(rec.Name).ID() {
		create.Request = c.in.request(rec.Name) // the restart was not carried out
	}
	if !c.needsImage(&create, e, rec) {
		c.add(create)
	}
}

// stop is the order for a graceful stop.
func (c *computation) stop(e *desired.Entry, rec *actual.Record, reason string) actual.Ending {
	end := actual.Ending{Reason: reason, StopSignal: desired.DefaultStopSignal, Grace: desired.DefaultGracePeriod}
	if img := rec.App().Image; img != nil {
		end.StopSignal = cmp.Or(img.StopSignal, end.StopSignal)
	}
	if e != nil {
		end.StopSignal = cmp.Or(string(e.Sandbox.Spec.StopSignal), end.StopSignal)
		end.Grace = time.Duration(*e.Sandbox.Spec.TerminationGracePeriod)
	}
	switch reason {
	case actual.ReasonSuspended:
		end.Containers = endings.Kept(rec)
	case actual.ReasonSpecChanged, actual.ReasonRestartRequested, actual.ReasonInputChanged, actual.ReasonNetworkChanged:
		end.Replace = true
	}
	return end
}

// aborted cleans up after creates that died before their record, unless the
// name is wanted: its create takes the directory over.
func (c *computation) aborted() {
	for _, name := range c.in.Actual.Aborted {
		if (c.in.Desired.Removed(name, "") || c.in.ordered(name)) && !c.in.busy(name) {
			c.add(Action{Op: OpForget, Name: name, Reason: actual.ReasonAborted})
		}
	}
	if len(c.in.Actual.Aborted) > 0 {
		c.sort()
	}
}

func (c *computation) sort() {
	slices.SortStableFunc(c.plan.Actions, func(a, b Action) int { return cmp.Compare(a.Name, b.Name) })
}

func (in *Input) restartWanted(rec *actual.Record) bool {
	t := in.request(rec.Name).ID()
	return t != "" && t != rec.RestartToken
}

// restores says whether the create on record was to restore a checkpoint, which is
// for a new start.
func (c *computation) restores(rec *actual.Record) bool {
	r := c.in.request(rec.Name)
	return r != nil && r.Token == rec.RestartToken && r.Checkpoint != ""
}

// request is the restart request for a name, nil if there is none.
func (in *Input) request(name string) *actual.Request {
	for i := range in.Actual.Requests {
		if r := &in.Actual.Requests[i]; r.Kind == actual.RequestRestart && r.Name == name {
			return r
		}
	}
	return nil
}

// Unknown says whether it can't be told if a sandbox lives.
func Unknown(o *actual.Observed) bool {
	return o.Sentry == process.Unknown || o.Gofer == process.Unknown
}

// stoppedDead says that all that is left of a sandbox is its record.
func stoppedDead(o *actual.Observed) bool {
	return o.Record.Phase == actual.PhaseStopped && !anyAlive(o)
}

func anyAlive(o *actual.Observed) bool {
	return o.Sentry == process.Alive || o.Gofer == process.Alive
}

// sameSpec compares hashes, in the scheme of the recorded one.
func sameSpec(rec *actual.Record, e *desired.Entry) bool {
	return rec.SpecHash == e.Hash || desired.HashMatches(rec.SpecHash, e.Sandbox)
}
