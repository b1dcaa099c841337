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
	facts := Facts{Setup: st}
	if p != nil {
		facts.Wanted = policy.Waiting()
	}
	if facts.Wanted > 0 {
		var err error
		if c.key, err = KeyOf(sentry, gofer, policy); err != nil {
			facts.Lack = err.Error()
		} else {
			facts.Waiting, facts.Lack = p.has(c.key)
		}
	}
	c.choice = Choose(&facts)
	if c.choice.Way == actual.WayWaiting {
		c.Waiting = p.Take(c.key)
	}
	return c
}

// Took says which way the processes of the start came in the end, and why not a better one,
// as the record does.
func (c *Claim) Took(p *pair.Pair) (way, why string) {
	switch {
	case p.Waited:
		return actual.WayWaiting, ""
	case c.choice.Way == actual.WayCold:
		return c.choice.Way, c.choice.Why
	case c.Waiting == nil:
		return actual.WayCold, "another start took the last ones that waited"
	case c.Waiting.Refused != nil:
		return actual.WayCold, "what waited did not become this sandbox; the log of the daemon says why"
	}
	return actual.WayCold, c.Waiting.Misfit
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
