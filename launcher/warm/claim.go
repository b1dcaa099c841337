// SPDX-License-Identifier: Apache-2.0

package warm

import (
	"os"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/setup"
)

// Claim is what one start has of a pool.
type Claim struct {
	pool   *Pool
	key    Key
	choice Choice
	// Waiting is what it may use, nil if it has nothing.
	Waiting *pair.Waiting
}

// Claim takes processes for a start with these programs, under this policy: nil, or one that
// has none wait, says that the start is for none that waited. Without any that fit it has none, and the start is as it
// would be without a pool.
func (p *Pool) Claim(sentry, gofer *os.File, policy *hostpolicy.Policy, st *setup.Setup) *Claim {
	c := &Claim{pool: p}
	facts := &Facts{Setup: st}
	if p != nil && wantedBy(policy) != (count{}) {
		var err error
		if c.key, err = KeyOf(sentry, gofer, policy); err == nil {
			facts = p.facts(&c.key, policy, st)
		} else {
			facts.Wanted, facts.WantedWarm, facts.Lack = policy.Waiting(), policy.WarmSentries(), err.Error()
		}
	}
	for c.choice = Choose(facts); c.choice.Way != actual.WayCold && c.Waiting == nil; c.choice = Choose(facts) {
		if c.Waiting = p.Take(c.key, c.choice.Way == actual.WayWarm); c.Waiting != nil {
			break
		}
		// Another start has taken it meanwhile.
		if facts.Lack = "another start took the last ones that waited"; c.choice.Way == actual.WayWarm {
			facts.Warm = 0
		} else {
			facts.Waiting = 0
		}
	}
	return c
}

// facts are what decides about a start: what is kept that it can have, of a key unless that is
// nil, and why there is no more.
func (p *Pool) facts(key *Key, policy *hostpolicy.Policy, st *setup.Setup) *Facts {
	want := wantedBy(policy)
	f := &Facts{Setup: st, Wanted: want.pairs, WantedWarm: want.warm}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.slots {
		switch {
		case key != nil && (s.key != *key || !s.Whole()):
		case s.Warm != nil:
			f.Warm++
		default:
			f.Waiting++
		}
	}
	f.Lack = p.lack
	return f
}

// Took says which way the processes of the start came in the end, and why not a better one,
// as the record does.
func (c *Claim) Took(p *pair.Pair) (way, why string) {
	switch way = p.Way(); {
	case way == c.choice.Way:
		return way, c.choice.Why
	case c.Waiting != nil && c.Waiting.Refused != nil:
		return way, "what waited did not become this sandbox; the log of the daemon says why"
	case c.Waiting != nil:
		return way, c.Waiting.Misfit
	}
	return way, c.choice.Why
}

// Close gives back what was not used.
func (c *Claim) Close() {
	if c.Waiting == nil {
		return
	}
	if err := c.Waiting.Refused; err != nil {
		c.pool.opts.Log.Warn("a process that waited was of no use; the sandbox was started without it", "err", err)
	}
	if err := c.pool.Return(c.key, c.Waiting); err != nil {
		c.pool.opts.Log.Warn("a process that waited was not ended", "err", err)
	}
}
