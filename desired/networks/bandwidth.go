// SPDX-License-Identifier: Apache-2.0

package networks

import "sandboxctl.dev/desired/scalar"

// Bandwidth is how much passes an interface of a sandbox.
type Bandwidth struct {
	// What the sandbox sends, in bits in a second such as `10Mbit`, at least `256kbit` and at
	// most `100Gbit`. Default: no limit.
	Egress scalar.Rate `json:"egress,omitempty"`
	// What it receives. Default: no limit.
	Ingress scalar.Rate `json:"ingress,omitempty"`
}

// Bounds of a rate. Below, the largest packet takes more time than the kernel can wait for it.
const (
	minRate = scalar.Rate(256e3)
	maxRate = scalar.Rate(100e9)
)

func (c check) bandwidth(at string, b *Bandwidth) {
	if b == nil {
		return
	}
	if *b == (Bandwidth{}) {
		c.add(at, "expected egress or ingress, a rate such as 10Mbit")
	}
	c.rate(at+".egress", b.Egress)
	c.rate(at+".ingress", b.Ingress)
}

func (c check) rate(at string, r scalar.Rate) {
	if r != 0 && (r < minRate || r > maxRate) {
		c.add(at, "expected %s to %s, got %s", minRate, maxRate, r)
	}
}

// Limits is the bandwidth of a sandbox on networks; zero is no limit.
func (n *Network) Limits() Bandwidth {
	if n == nil || n.Bandwidth == nil || n.Mode != Bridge {
		return Bandwidth{}
	}
	return *n.Bandwidth
}
