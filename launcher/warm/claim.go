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
// would be without a pool. The start of a claim of a SandboxPool takes what is kept for that.
func (p *Pool) Claim(rec *actual.Record, sentry, gofer *os.File, policy *hostpolicy.Policy, st *setup.Setup) *Claim {
	c := &Claim{pool: p}
	facts, of := &Facts{Setup: st}, poolOf(rec)
	if asked := p.askedBy(policy); asked != (count{}) {
		var err error
		if c.key, err = KeyOf(sentry, gofer, policy); err == nil {
			facts = p.facts(&c.key, of, policy, st)
		} else {
			facts.Wanted, facts.WantedWarm, facts.Lack, facts.LackWarm = asked.pairs, asked.warm, err.Error(), err.Error()
		}
	}
	for c.choice = Choose(facts); c.choice.Way != actual.WayCold && c.Waiting == nil; c.choice = Choose(facts) {
		if c.Waiting = p.takeFor(of, c.key, c.choice.Way == actual.WayWarm); c.Waiting != nil {
			break
		}
		const gone = "the last ones that waited were taken by another start, or ended, at that moment"
		if c.choice.Way == actual.WayWarm {
			facts.Warm, facts.LackWarm = 0, gone
		} else {
			facts.Waiting, facts.Lack = 0, gone
		}
	}
	if of != "" && c.Waiting == nil {
		p.drained(rec.Name, of, c.choice.Why, st)
	}
	return c
}

// facts are what decides about a start: what is kept that it can have, of a key, and why there is no
// more. of is the SandboxPool that it takes a place of, "" if it takes none. Without a key all count.
func (p *Pool) facts(key *Key, of string, policy *hostpolicy.Policy, st *setup.Setup) *Facts {
	f := p.kept(key)
	asked := p.askedBy(policy)
	f.Setup, f.Wanted, f.WantedWarm = st, asked.pairs, asked.warm
	if n := f.Waiting; key != nil {
		if f.Waiting = p.reserved.For(of, n); f.Waiting == 0 && n > 0 {
			f.Lack = "those that were waiting are kept for claims of pools"
		}
	}
	return f
}

// kept is what waits.
func (p *Pool) kept(key *Key) *Facts {
	f := new(Facts)
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
	f.Lack, f.LackWarm = p.lacking.pairs, p.lacking.warm
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
