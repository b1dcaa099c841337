// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"cmp"
	"time"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
)

// Bounds of a host policy that does not say otherwise.
const (
	DefaultMinRestartDelay    = time.Second
	DefaultMaxStartsPerSecond = 20
	DefaultMaxStartTime       = 10 * time.Minute
	DefaultMaxHookTime        = 5 * time.Minute
	// DefaultWarm is enough for starts that come one at a time, as those do for which somebody
	// waits. Each one more takes its memory on every host.
	DefaultWarm = 1

	DefaultMaxPoolPlaces = 16

	maxWarm = 64
)

// fillPace gives the bounds that a file left out their defaults.
func (p *Policy) fillPace() {
	p.MinRestartDelay = cmp.Or(p.MinRestartDelay, new(scalar.Duration(DefaultMinRestartDelay)))
	p.MaxStartTime = cmp.Or(p.MaxStartTime, new(scalar.Duration(DefaultMaxStartTime)))
	p.MaxHookTime = cmp.Or(p.MaxHookTime, new(scalar.Duration(DefaultMaxHookTime)))
	p.MaxStartsPerSecond = cmp.Or(p.MaxStartsPerSecond, DefaultMaxStartsPerSecond)
	p.Warm = cmp.Or(p.Warm, new(DefaultWarm))
	p.WarmKernels = cmp.Or(p.WarmKernels, new(0))
	p.MaxPoolPlaces = cmp.Or(p.MaxPoolPlaces, new(DefaultMaxPoolPlaces))
}

// pace checks the bounds of starts, hooks and restarts.
func (v *validator) pace(p *Policy) {
	if p.MaxStartsPerSecond < 0 || p.MaxStartsPerSecond > 1000 {
		v.Add("maxStartsPerSecond", "expected 1 to 1000, got %d", p.MaxStartsPerSecond)
	}
	if p.Warm != nil && (*p.Warm < 0 || *p.Warm > maxWarm) {
		v.Add("warm", "expected 0 (none) to %d, got %d", maxWarm, *p.Warm)
	}
	if n := p.WarmKernels; n != nil && (*n < 0 || *n > maxWarm) {
		v.Add("warmKernels", "expected 0 (none) to %d, got %d", maxWarm, *n)
	}
	if n := p.MaxPoolPlaces; n != nil && (*n < 0 || *n > maxWarm) {
		v.Add("maxPoolPlaces", "expected 0 (none) to %d, got %d", maxWarm, *n)
	}
	v.Duration("minRestartDelay", p.MinRestartDelay, time.Hour)
	for _, d := range []struct {
		field string
		d     *scalar.Duration
	}{{"maxStartTime", p.MaxStartTime}, {"maxHookTime", p.MaxHookTime}} {
		v.Duration(d.field, d.d, 24*time.Hour)
		if d.d != nil && *d.d >= 0 && time.Duration(*d.d) < time.Second {
			v.Add(d.field, "expected at least 1s, got %s", time.Duration(*d.d))
		}
	}
}

// Waiting is how many pairs of processes wait for a sandbox. A nil policy has none.
func (p *Policy) Waiting() int {
	if p == nil || p.Warm == nil {
		return 0
	}
	return *p.Warm
}

// WarmSentries is how many sentries wait that have booted a kernel. A nil policy has none.
func (p *Policy) WarmSentries() int {
	if p == nil || p.WarmKernels == nil {
		return 0
	}
	return *p.WarmKernels
}

// PoolPlaces is how many processes besides these wait for claims of pools, at most. A nil policy has
// none.
func (p *Policy) PoolPlaces() int {
	if p == nil || p.MaxPoolPlaces == nil {
		return 0
	}
	return *p.MaxPoolPlaces
}

// Bounds are what the policy says about all sandboxes together.
func (p *Policy) Bounds() desired.Bounds {
	b := desired.Bounds{MaxSandboxes: p.MaxSandboxes, StartsPerSecond: p.MaxStartsPerSecond, DefaultDiskSize: int64(p.DefaultDiskSize)}
	if p.MinRestartDelay != nil {
		b.RestartFloor = time.Duration(*p.MinRestartDelay)
	}
	return b
}

// StartTime and HookTime bound a start and the hooks of one point. A nil policy
// has the default ones.
func (p *Policy) StartTime() time.Duration {
	if p == nil || p.MaxStartTime == nil {
		return DefaultMaxStartTime
	}
	return time.Duration(*p.MaxStartTime)
}

// HookTime bounds the hooks of one point, see StartTime.
func (p *Policy) HookTime() time.Duration {
	if p == nil || p.MaxHookTime == nil {
		return DefaultMaxHookTime
	}
	return time.Duration(*p.MaxHookTime)
}
