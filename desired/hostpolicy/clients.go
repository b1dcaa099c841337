// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

// Bounds of clients where a policy does not say otherwise.
const (
	DefaultClientRuns = 16
	DefaultClientTime = 10 * time.Minute

	maxClientRuns = 100
)

// ClientsPolicy says who beside root may use the socket of clients, and for what. What they ask
// for is judged by the rest of the policy too, as a manifest is.
type ClientsPolicy struct {
	// A group of the host, by its name in `/etc/group` or by its number, whose members may run
	// commands in sandboxes through the socket of clients, as root always may. Paths of the host, the
	// host's network and names that do not begin with `run-` stay root's. Default: none.
	Group string `json:"group,omitempty"`
	// 1 to 100: requests that one user of the group may have under way. Default: `16`.
	MaxRuns int `json:"maxRuns,omitempty"`
	// How long a command of a user of the group may run, with the start of its sandbox, and what it
	// has if it asks for nothing; 1s to 24h.
	MaxTime *scalar.Duration `json:"maxTime,omitempty"`
	// Networks of sandboxes that users of the group may join. Default: none.
	Networks []string `json:"networks,omitempty"`
	// Named volumes that users of the group may mount, to read and to write. Default: none.
	Volumes []string `json:"volumes,omitempty"`
	// Images of registries that are fetched for users of the group where the store lacks them, as in
	// `root.images`, which must allow them too. Others must be in the store. What was fetched stays
	// there until `sandboxctl image prune`. Default: none.
	Images []string `json:"images,omitempty"`
}

func (c *ClientsPolicy) fill() {
	c.MaxRuns = cmp.Or(c.MaxRuns, DefaultClientRuns)
	c.MaxTime = cmp.Or(c.MaxTime, new(scalar.Duration(DefaultClientTime)))
}

// Time is how long a command of a user may run.
func (c *ClientsPolicy) Time() time.Duration {
	if c.MaxTime == nil {
		return DefaultClientTime
	}
	return time.Duration(*c.MaxTime)
}

// Runs is how many requests one user may have under way.
func (c *ClientsPolicy) Runs() int { return cmp.Or(c.MaxRuns, DefaultClientRuns) }

// MayFetch says whether an image is fetched for a user of the group if the store lacks it.
func (c *ClientsPolicy) MayFetch(ref string) bool {
	r, err := imageref.Parse(ref)
	return err == nil && (r.Kind != imageref.Registry || namesImage(c.Images, r))
}

// clients checks what a policy says of clients.
func (v *validator) clients(c *ClientsPolicy) {
	if strings.ContainsAny(c.Group, ": \t\n,") || len(c.Group) > 255 {
		v.Add("clients.group", "expected the name or the number of a group, got %q", yamldoc.Clip(c.Group))
	}
	if c.MaxRuns < 0 || c.MaxRuns > maxClientRuns { // 0 is the default
		v.Add("clients.maxRuns", "expected 1 to %d, got %d", maxClientRuns, c.MaxRuns)
	}
	v.Duration("clients.maxTime", c.MaxTime, 24*time.Hour)
	if c.MaxTime != nil && *c.MaxTime >= 0 && time.Duration(*c.MaxTime) < time.Second {
		v.Add("clients.maxTime", "expected at least 1s, got %s", time.Duration(*c.MaxTime))
	}
	for i, n := range c.Networks {
		if !desired.ValidName(n) || n == networks.None || n == networks.Host {
			v.Add(fmt.Sprintf("clients.networks[%d]", i), "expected the name of a network of sandboxes, got %q", yamldoc.Clip(n))
		}
	}
	for i, n := range c.Images {
		v.imageName(fmt.Sprintf("clients.images[%d]", i), n)
	}
	for i, n := range c.Volumes {
		if !desired.ValidName(n) {
			v.Add(fmt.Sprintf("clients.volumes[%d]", i), "expected the name of a volume, got %q", yamldoc.Clip(n))
		}
	}
}
