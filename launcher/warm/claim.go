// SPDX-License-Identifier: Apache-2.0

package warm

import (
	"os"

	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/setup"
)

// Claim is what one start has of a pool.
type Claim struct {
	pool *Pool
	key  Key
	// Waiting is what it may use, nil if it has nothing.
	Waiting *pair.Waiting
}

// Claim takes processes for a start with these programs, under this policy: nil, or one that
// has none wait, says that the start is for none that waited. Without any that fit it has none, and the start is as it
// would be without a pool.
func (p *Pool) Claim(sentry, gofer *os.File, policy *hostpolicy.Policy, st *setup.Setup) *Claim {
	c := &Claim{pool: p}
	if p == nil || policy.Waiting() == 0 {
		return c
	}
	if why := pair.Unfit(st); why != "" {
		p.opts.Log.Debug("processes that wait are not for this sandbox", "why", why)
		return c
	}
	var err error
	if c.key, err = KeyOf(sentry, gofer, policy); err == nil {
		c.Waiting = p.Take(c.key)
	}
	return c
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
