// SPDX-License-Identifier: Apache-2.0

package desired

import "time"

// Bounds of a host policy that does not say otherwise.
const (
	DefaultMinRestartDelay    = time.Second
	DefaultMaxStartsPerSecond = 20
	DefaultMaxStartTime       = 10 * time.Minute
	DefaultMaxHookTime        = 5 * time.Minute
)

// fillPace gives the bounds that a file left out their defaults.
func (p *HostPolicy) fillPace() {
	orDuration(&p.MinRestartDelay, DefaultMinRestartDelay)
	orDuration(&p.MaxStartTime, DefaultMaxStartTime)
	orDuration(&p.MaxHookTime, DefaultMaxHookTime)
	if p.MaxStartsPerSecond == 0 {
		p.MaxStartsPerSecond = DefaultMaxStartsPerSecond
	}
}

// pace checks the bounds of starts, hooks and restarts.
func (v *validator) pace(p *HostPolicy) {
	if p.MaxStartsPerSecond < 0 || p.MaxStartsPerSecond > 1000 {
		v.add("maxStartsPerSecond", "expected 1 to 1000, got %d", p.MaxStartsPerSecond)
	}
	v.duration("minRestartDelay", p.MinRestartDelay, time.Hour)
	for _, d := range []struct {
		field string
		d     *Duration
	}{{"maxStartTime", p.MaxStartTime}, {"maxHookTime", p.MaxHookTime}} {
		v.duration(d.field, d.d, 24*time.Hour)
		if d.d != nil && *d.d >= 0 && time.Duration(*d.d) < time.Second {
			v.add(d.field, "expected at least 1s, got %s", time.Duration(*d.d))
		}
	}
}

// RestartFloor is the least delay after a failure. A nil policy has none.
func (p *HostPolicy) RestartFloor() time.Duration {
	if p == nil || p.MinRestartDelay == nil {
		return 0
	}
	return time.Duration(*p.MinRestartDelay)
}

// StartsPerSecond bounds the starts that nobody asked for; 0 is no bound, as of a
// nil policy.
func (p *HostPolicy) StartsPerSecond() int {
	if p == nil {
		return 0
	}
	return p.MaxStartsPerSecond
}

// StartTime and HookTime bound a start and the hooks of one point. A nil policy
// has the default ones.
func (p *HostPolicy) StartTime() time.Duration {
	if p == nil || p.MaxStartTime == nil {
		return DefaultMaxStartTime
	}
	return time.Duration(*p.MaxStartTime)
}

// HookTime bounds the hooks of one point, see StartTime.
func (p *HostPolicy) HookTime() time.Duration {
	if p == nil || p.MaxHookTime == nil {
		return DefaultMaxHookTime
	}
	return time.Duration(*p.MaxHookTime)
}
