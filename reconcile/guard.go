// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/reconcile/places"
)

// Guard is a removal that is too large to be carried out unasked.
type Guard struct {
	// The sandboxes whose removal is on hold.
	Names []string `json:"names"`
	// How many sandboxes would be gone within one minute.
	Gone int `json:"gone"`
	// How many sandboxes there are.
	Total int `json:"total"`
	// When the removal is carried out without approval, because those before it are long
	// enough ago; missing if never.
	Until time.Time `json:"until,omitzero"`
	// All of this in a sentence.
	Message string `json:"message"`
	// recent says that some of Gone are gone already.
	recent bool
}

// guard decides whether the removals of this plan wait for approval.
//
// Only what vanished counts. A removal that has begun is not counted, neither as a
// removal nor as a sandbox: finishing it must not make the rest look larger or
// smaller than it was when the decision was made. Nor is what an operator ordered.
func (c *computation) guard() {
	p := c.in.Policy
	if p.AllowMassDelete {
		return
	}
	vanished, there, names := 0, 0, []string(nil)
	for i := range c.in.Actual.Sandboxes {
		o := &c.in.Actual.Sandboxes[i]
		gone := c.in.gone(o.Record)
		if gone && !c.in.vanished(o) {
			continue
		}
		there++
		if gone {
			vanished++
			if !c.approved(o.Record.Name) {
				names = append(names, o.Record.Name)
			}
		}
	}
	if vanished == 0 {
		return
	}
	many := func(recent int) bool {
		n := vanished + recent
		return n >= p.MaxRemoveCount && float64(n) > p.MaxRemoveShare*float64(there+recent)
	}
	recent := c.recent()
	if !many(len(recent)) {
		return
	}
	c.guarded = true
	g := Guard{Names: names, Gone: vanished + len(recent), Total: there, recent: len(recent) > 0}
	if len(g.Names) == 0 {
		return
	}
	// They are removed when so many of the removals before are over a minute ago
	// that the rest is not many.
	for i := range recent {
		if !many(len(recent) - i - 1) {
			g.Until = recent[i].Add(RemovalWindow)
			c.wakeAt(g.Until)
			break
		}
	}
	g.Message = g.describe(g.Names)
	c.plan.Guard = &g
}

// vanished says whether a sandbox that is to go counts as one whose manifest has
// vanished. An operation is among the recent removals before the record says so: it is
// not counted twice.
func (in *Input) vanished(o *actual.Observed) bool {
	return !removalBegun(o.Record) && !in.Operations[o.Record.Name].Removes && !in.explicit(o)
}

// Vanished are the sandboxes whose manifests have vanished and whose removal has not
// begun, or has failed before anything was done.
func (in *Input) Vanished() map[string]bool {
	out := map[string]bool{}
	for i := range in.Actual.Sandboxes {
		if o := &in.Actual.Sandboxes[i]; in.gone(o.Record) && in.vanished(o) {
			out[o.Record.Name] = true
		}
	}
	return out
}

// recent are the removals of the last minute that nobody has approved, the oldest
// first.
func (c *computation) recent() []time.Time {
	var out []time.Time
	for _, at := range c.in.Removals {
		if age := c.in.Now.Sub(at); age >= 0 && age < RemovalWindow {
			out = append(out, at)
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}

// describe says what is on hold, why, and until when.
func (g *Guard) describe(names []string) string {
	them, they, are, keep := "it", "it", "is", "keeps"
	if len(names) > 1 {
		them, they, are, keep = "them", "they", "are", "keep"
	}
	why := fmt.Sprintf("the manifests of %d of %d sandboxes are missing", g.Gone, g.Total)
	if g.recent {
		why = fmt.Sprintf("%d sandboxes would be gone within one minute", g.Gone)
	}
	end := fmt.Sprintf("otherwise %s %s running until the manifests are back", they, keep)
	if !g.Until.IsZero() {
		end = fmt.Sprintf("otherwise %s %s removed at %s", they, are, g.Until.Format(time.TimeOnly))
	}
	return fmt.Sprintf("removal of %s is on hold: %s; `sandboxctl approve` removes %s now, %s", list(names), why, them, end)
}

// list gives names for a sentence, the first few of many.
func list(names []string) string {
	const most = 3
	switch n := len(names); {
	case n == 1:
		return names[0]
	case n > most+1:
		return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), n-most)
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}

// removalBegun says whether the removal of a sandbox is under way.
func removalBegun(rec *actual.Record) bool {
	return rec.Ending != nil && rec.Ending.Reason == actual.ReasonManifestRemoved &&
		(rec.Phase == actual.PhaseStopping || rec.Phase == actual.PhaseStopped)
}

// approved says whether an operator has approved the removal of a name.
func (c *computation) approved(name string) bool {
	for i := range c.in.Actual.Requests {
		r := &c.in.Actual.Requests[i]
		if r.Kind != actual.RequestApprove {
			continue
		}
		if _, ok := slices.BinarySearch(r.Names, name); ok {
			return true
		}
	}
	return false
}

// gone says whether a sandbox on record is to go: its author has removed its
// manifest, or an operator has ordered its removal and there is no manifest that
// counts. An order needs no evidence: it holds whatever else is missing or broken.
func (in *Input) gone(rec *actual.Record) bool {
	return in.Desired.Removed(rec.Name, rec.SourceFile) || in.ordered(rec.Name)
}

// ordered says whether an operator has ordered the removal of a sandbox, and has
// removed its manifest.
func (in *Input) ordered(name string) bool {
	for i := range in.Actual.Requests {
		if r := &in.Actual.Requests[i]; r.Kind == actual.RequestRemove && r.Name == name {
			return in.Desired.Lookup(name) == nil
		}
	}
	return false
}

// explicit says whether the removal of a sandbox is no accident, or none that hurts:
// an operator has ordered it, or it is a job that has finished.
func (in *Input) explicit(o *actual.Observed) bool {
	return o.Record.App().Completed && stoppedDead(o) || in.ordered(o.Record.Name)
}

// orderWindow is how long an order to remove outlives a manifest that is still there,
// or there again: who ordered it removes the manifest right after.
const orderWindow = time.Minute

// removed says whether an order to remove is carried out, or overtaken by events.
func (in *Input) removed(r *actual.Request) bool {
	if places.Quarantined(in.Actual, r.Name) || in.busy(r.Name) {
		return false
	}
	if in.Desired.Lookup(r.Name) != nil {
		return in.Now.Sub(r.At).Abs() > orderWindow
	}
	return !places.OnRecord(in.Actual, r.Name) && !slices.Contains(in.Actual.Aborted, r.Name)
}
