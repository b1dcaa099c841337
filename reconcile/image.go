// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"cmp"
	"fmt"
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/reconcile/pulling"
)

// Images is what the store knows: the digest of each image that is in it, by the
// references that were resolved, and by the digests themselves. Nobody is asked over
// a network.
type Images map[string]string

// needsImage decides which image the next start of a sandbox takes, and delays an
// action until that is in the store: a start, or the stop of what is to be started
// again. What runs is not disturbed before.
//
// A sandbox that was started once with its spec keeps the image that it had: a tag
// that was moved is not followed because an application has ended. It is followed if
// the spec changes, or if somebody asks for a restart and the policy is Always.
func (c *computation) needsImage(a *Action, e *desired.Entry, rec *actual.Record) bool {
	img := e.Sandbox.Spec.Root.Image
	if img == nil {
		return false
	}
	need := pulling.Need{Name: a.Name, Hash: e.Hash}
	// A checkpoint is restored with the image that it was taken with.
	if r := c.in.request(a.Name); (rec == nil || c.in.restartWanted(rec)) && r != nil && r.Checkpoint == "" {
		need.Restart = r.Token
	}
	want := imageref.PullRequest{Ref: img.Reference(), Policy: img.PullPolicy, Digest: img.Digest}
	recorded := recordedImage(rec, e)
	switch {
	case recorded != "" && (need.Restart == "" || img.PullPolicy != imageref.PullAlways):
		if a.Image = c.in.Images[recorded]; a.Image != "" {
			return false
		}
		// It was removed from the store: that very one is fetched again.
		want.Ref, want.Digest = img.At(recorded), recorded
		if img.PullPolicy == imageref.PullAlways {
			want.Policy = imageref.PullIfNotPresent
		}
	case c.in.Pulled[a.Name].Need == need && c.in.Images[c.in.Pulled[a.Name].Digest] != "":
		a.Image = c.in.Pulled[a.Name].Digest
		return false
	case need.Restart == "" && c.pinned(e) != "":
		a.Image = c.pinned(e)
		return false
	case img.PullPolicy != imageref.PullAlways:
		a.Image = c.in.Images[want.Ref]
		if img.Digest != "" && a.Image != img.Digest && c.in.Images[img.Digest] != "" {
			a.Image = c.in.Images[img.Digest]
		}
		if a.Image != "" && (img.Digest == "" || img.InRegistry() || a.Image == img.Digest) {
			return false
		}
		a.Image = ""
	}
	if want.Policy == imageref.PullNever {
		a.Reason = actual.ReasonImageNotFound
		c.delayForHost(*a, "the store has no image "+want.Ref+", and pullPolicy is Never: `sandboxctl image pull` or `import` it", true)
		return true
	}
	c.pull(a, want, need)
	return true
}

// recordedImage is the digest that a sandbox was started with, "" if its spec is
// another one now.
func recordedImage(rec *actual.Record, e *desired.Entry) string {
	if e == nil || rec == nil || rec.App().Image == nil || !sameSpec(rec, e) {
		return ""
	}
	return rec.App().Image.Digest
}

// pull plans a pull, or says what it waits for, and delays the action that needs it.
func (c *computation) pull(a *Action, want imageref.PullRequest, need pulling.Need) {
	if c.in.Actual.DiskFull != "" {
		a.Reason = actual.ReasonDiskPressure
		c.delayForHost(*a, c.in.Actual.DiskFull, false)
		return
	}
	if r, failed := c.in.PullRetries[want.Ref]; failed {
		if until := r.Delays(need, c.in.Now); !until.IsZero() {
			a.Reason = r.Reason
			c.plan.Delayed = append(c.plan.Delayed, Delayed{Action: *a, Until: until, Why: r.Message, PreconditionFailed: r.PreconditionFailed})
			c.wakeAt(until)
			c.plan.PullsLater = append(c.plan.PullsLater, want.Ref)
			return
		}
	}
	a.Reason = actual.ReasonPulling
	step := "waits for a place"
	if p, ok := c.in.Pulls[want.Ref]; ok {
		step = cmp.Or(p.Step, "begins")
	}
	c.plan.Delayed = append(c.plan.Delayed, Delayed{Action: *a, Why: fmt.Sprintf("pulling %s: %s", want.Ref, step)})
	i := slices.IndexFunc(c.plan.Pulls, func(p pulling.Pull) bool { return p.Ref == want.Ref })
	if i < 0 {
		c.plan.Pulls = append(c.plan.Pulls, pulling.Pull{PullRequest: want})
		i = len(c.plan.Pulls) - 1
	}
	p := &c.plan.Pulls[i]
	if want.Policy == imageref.PullAlways {
		p.Policy = want.Policy
	}
	if want.Digest != p.Digest {
		p.Digest = "" // each looks for its own when it has been fetched
	}
	p.Needs = append(p.Needs, need)
}

// keepPulls plans the pulls under way on which nothing was decided now: those of
// sandboxes that have an operation, and of manifests whose absence is no evidence.
func (c *computation) keepPulls() {
	for ref, p := range c.in.Pulls {
		if slices.ContainsFunc(c.plan.Pulls, func(q pulling.Pull) bool { return q.Ref == ref }) {
			continue
		}
		if slices.ContainsFunc(p.Needs, c.undecided) {
			c.plan.Pulls = append(c.plan.Pulls, pulling.Pull{PullRequest: p.PullRequest, Needs: p.Needs})
		}
	}
	slices.SortFunc(c.plan.Pulls, func(a, b pulling.Pull) int { return cmp.Compare(a.Ref, b.Ref) })
	slices.Sort(c.plan.PullsLater)
	c.plan.PullsLater = slices.Compact(c.plan.PullsLater)
}

func (c *computation) undecided(n pulling.Need) bool {
	e := c.in.Desired.Lookup(n.Name)
	if c.in.ordered(n.Name) {
		return false
	}
	if e == nil {
		return !c.in.Desired.Removed(n.Name, "")
	}
	return c.in.busy(n.Name) && e.Hash == n.Hash
}
