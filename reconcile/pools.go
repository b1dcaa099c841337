// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/reconcile/pulling"
)

// poolImages plans what pools need before a claim comes: the image of the template, in the store.
// Claims get the one that was found then, wherever its tag points later.
func (c *computation) poolImages() {
	for i := range c.in.Desired.Objects {
		o := &c.in.Desired.Objects[i]
		e := pulling.OfPool(o)
		if e == nil {
			continue
		}
		delayed := len(c.plan.Delayed)
		a := Action{Name: o.Name(), Entry: e}
		if !c.needsImage(&a, e, nil) {
			c.plan.Pins = append(c.plan.Pins, pulling.Done{Need: pulling.Need{Name: a.Name, Hash: e.Hash}, Digest: a.Image})
			continue
		}
		// It is no start, and nothing waits for it but the pool.
		c.plan.PoolsWait = append(c.plan.PoolsWait, c.plan.Delayed[delayed])
		c.plan.Delayed = c.plan.Delayed[:delayed]
	}
}

// pinned is the image that the pool of a claim has pinned, "" if it has none.
func (c *computation) pinned(e *desired.Entry) string {
	if e.Claim == nil {
		return ""
	}
	o := c.in.Desired.Objects.Lookup(objects.Name(objects.Pool, e.Claim.Pool))
	if of := pulling.OfPool(o); of != nil {
		if pin := c.in.Pulled[o.Name()]; pin.Hash == of.Hash {
			return c.in.Images[pin.Digest]
		}
	}
	return ""
}
