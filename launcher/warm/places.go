// SPDX-License-Identifier: Apache-2.0

package warm

import (
	"bytes"
	"encoding/json"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/ownnotes"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/warm/reserved"
)

// askedBy is how many are asked for: by the policy, and by SandboxPools, which keep pairs.
func (p *Pool) askedBy(policy *hostpolicy.Policy) count {
	if p == nil {
		return count{}
	}
	return count{policy.Waiting() + p.reserved.Total(policy.PoolPlaces()), policy.WarmSentries()}
}

// wantedBy is how many of them are to wait.
func (p *Pool) wantedBy(policy *hostpolicy.Policy) count {
	want := p.askedBy(policy)
	if NoKernels(policy) != "" {
		want.warm = 0
	}
	return want
}

// takeFor is Take for a start that takes a place of a SandboxPool, or of none if of is "": no pair
// that is kept for others. Warm sentries are everybody's.
func (p *Pool) takeFor(of string, key Key, warm bool) (w *pair.Waiting) {
	if warm {
		return p.Take(key, true)
	}
	p.reserved.Take(of, func() int { return p.kept(&key).Waiting }, func() bool {
		w = p.Take(key, false)
		return w != nil
	})
	return w
}

// drained tells of a claim that gets no place that is ready. If none ever is, since no process that
// waits is fit for the template, none is kept for it.
func (p *Pool) drained(name, of, why string, st *setup.Setup) {
	if p == nil || !p.reserved.Wanted(of) {
		return
	}
	if unfit := pair.Unfit(st); unfit != "" {
		p.reserved.Unfit(of, unfit)
	}
	if p.OnCold != nil {
		p.OnCold(name, of, why)
	}
}

// poolOf is the SandboxPool that a start takes a place of, "" if that is none: of a claim the first
// start.
func poolOf(rec *actual.Record) string {
	if rec.App().Restarts > 0 || !bytes.Contains(rec.Spec, []byte(ownnotes.Pool)) {
		return ""
	}
	var of struct {
		Metadata desired.Metadata `json:"metadata"`
	}
	if err := json.Unmarshal(rec.Spec, &of); err != nil {
		return "" // it is started as any other
	}
	return of.Metadata.Annotations[ownnotes.Pool]
}

// Reserve says what pools are to have ready. What is missing is made when nothing starts.
func (p *Pool) Reserve(pools map[string]reserved.Pool) {
	if p != nil {
		p.reserved.Want(pools)
	}
}
