// SPDX-License-Identifier: Apache-2.0

package desired

import "golang.org/x/sys/unix"

// What a sandbox may have by a host policy that does not say otherwise. Nobody
// has to write a limit for a fork bomb or a leak to stay in its sandbox.
const (
	// BuiltInPIDs are processes and threads of the host, of which a process of a
	// sandbox takes about two.
	BuiltInPIDs    = 2048
	BuiltInMaxPIDs = 8192
	// BuiltInLogSize is where a log file is rotated.
	BuiltInLogSize = Bytes(10 << 20)

	minLogSize = Bytes(64 << 10)
	maxLogSize = Bytes(1 << 40)
)

// hostMemory is the memory of this host. Zero, if it is not known, is no limit.
func hostMemory() Bytes {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return Bytes(info.Totalram*uint64(info.Unit)) &^ (1<<20 - 1) // for messages
}

// fillLimits gives the limits that a file left out: of memory half of the host's
// for a sandbox that does not ask, and all of it for one that does.
func (p *HostPolicy) fillLimits(memory Bytes) {
	d, m := &p.DefaultResources, &p.MaxResources
	fillLimit(&d.Memory, &m.Memory, max(memory/2, min(memory, MinMemory)), memory)
	fillLimit(&d.PIDs, &m.PIDs, BuiltInPIDs, BuiltInMaxPIDs)
	// There is no built-in limit of processors: the kernel shares them fairly.
	fillLimit(&d.CPU, &m.CPU, 0, 0)
	if p.LogSize == 0 {
		p.LogSize = BuiltInLogSize
	}
}

// fillLimit fills in the default and the most of one resource, where they are 0.
// A default that was given is never too much, and one that was not is never more
// than the most.
func fillLimit[T ~int64](def, most *T, builtIn, builtInMost T) {
	if *most == 0 {
		*most = max(builtInMost, *def)
	}
	if *def == 0 {
		*def = builtIn
		if *most != 0 && (builtIn == 0 || builtIn > *most) {
			*def = *most
		}
	}
}

// policyLimits judges what a file says, before anything is filled in.
func (v *validator) policyLimits(p *HostPolicy) {
	v.resources("maxResources", p.MaxResources)
	v.resources("defaultResources", p.DefaultResources)
	d, m := p.DefaultResources, p.MaxResources
	const more = "is more than maxResources allows; expected at most %s"
	if m.CPU != 0 && d.CPU > m.CPU {
		v.add("defaultResources.cpu", more, m.CPU)
	}
	if m.Memory != 0 && d.Memory > m.Memory {
		v.add("defaultResources.memory", more, m.Memory)
	}
	if m.PIDs != 0 && d.PIDs > m.PIDs {
		v.add("defaultResources.pids", "is more than maxResources allows; expected at most %d", m.PIDs)
	}
	if p.LogSize != 0 && (p.LogSize < minLogSize || p.LogSize > maxLogSize) {
		v.add("logSize", "expected %s to %s, got %s", minLogSize, maxLogSize, p.LogSize)
	}
}

// CheckResources returns what is asked for and more than the policy allows. It
// is for a bundle, which the policy has not seen as a manifest.
func (p *HostPolicy) CheckResources(field string, r Resources) []FieldError {
	v := &policyCheck{p: p}
	v.resources(field, r)
	return v.errs
}
