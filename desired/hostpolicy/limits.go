// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"cmp"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
)

// What a sandbox may have by a host policy that does not say otherwise. Nobody
// has to write a limit for a fork bomb or a leak to stay in its sandbox.
const (
	// BuiltInPIDs are processes and threads of the host, of which a process of a
	// sandbox takes about two.
	BuiltInPIDs    = 2048
	BuiltInMaxPIDs = 8192
	// BuiltInLogSize is where a log file is rotated.
	BuiltInLogSize = scalar.Bytes(10 << 20)
	// BuiltInDiskSize is what a directory on the disk may hold, BuiltInMaxDiskSize what all
	// of one sandbox may hold together.
	BuiltInDiskSize    = scalar.Bytes(1 << 30)
	BuiltInMaxDiskSize = scalar.Bytes(16 << 30)

	minLogSize = scalar.Bytes(64 << 10)
	maxLogSize = scalar.Bytes(1 << 40)
)

// hostMemory is the memory of this host. Zero, if it is not known, is no limit.
func hostMemory() scalar.Bytes {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return scalar.Bytes(info.Totalram*uint64(info.Unit)) &^ (1<<20 - 1) // for messages
}

// fillLimits gives the limits that a file left out: of memory half of the host's
// for a sandbox that does not ask, and all of it for one that does.
func (p *Policy) fillLimits(memory scalar.Bytes) {
	d, m := &p.DefaultResources, &p.MaxResources
	fillLimit(&d.Memory, &m.Memory, max(memory/2, min(memory, desired.MinMemory)), memory)
	fillLimit(&d.PIDs, &m.PIDs, BuiltInPIDs, BuiltInMaxPIDs)
	// There is no built-in limit of processors: the kernel shares them fairly.
	fillLimit(&d.CPU, &m.CPU, 0, 0)
	p.LogSize = cmp.Or(p.LogSize, BuiltInLogSize)
	if p.MaxDiskSize == nil {
		p.MaxDiskSize = new(max(BuiltInMaxDiskSize, p.DefaultDiskSize))
	}
	p.DefaultDiskSize = cmp.Or(p.DefaultDiskSize, min(BuiltInDiskSize, *p.MaxDiskSize))
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
func (v *validator) policyLimits(p *Policy) {
	v.Resources("maxResources", p.MaxResources)
	v.Resources("defaultResources", p.DefaultResources)
	d, m := p.DefaultResources, p.MaxResources
	const more = "is more than maxResources allows; expected at most %s"
	if m.CPU != 0 && d.CPU > m.CPU {
		v.Add("defaultResources.cpu", more, m.CPU)
	}
	if m.Memory != 0 && d.Memory > m.Memory {
		v.Add("defaultResources.memory", more, m.Memory)
	}
	if m.PIDs != 0 && d.PIDs > m.PIDs {
		v.Add("defaultResources.pids", "is more than maxResources allows; expected at most %d", m.PIDs)
	}
	v.DiskSize("defaultDiskSize", p.DefaultDiskSize)
	if most := p.MaxDiskSize; most != nil {
		v.DiskSize("maxDiskSize", *most)
		if p.DefaultDiskSize > *most {
			v.Add("defaultDiskSize", "is more than maxDiskSize allows; expected at most %s", *most)
		}
	}
	if p.LogSize != 0 && (p.LogSize < minLogSize || p.LogSize > maxLogSize) {
		v.Add("logSize", "expected %s to %s, got %s", minLogSize, maxLogSize, p.LogSize)
	}
}

// diskSizes judges what a sandbox may take on the disk, all of it together: many small
// directories fill a disk as one large one does.
func (v *check) diskSizes(s *desired.Spec) {
	most, sum := *v.p.MaxDiskSize, scalar.Bytes(0)
	for _, place := range s.OnDisk() {
		// By subtraction: a sum of sizes can overflow.
		size := cmp.Or(place.Size, v.p.DefaultDiskSize)
		switch left := most - sum; {
		case most == 0:
			v.Add(place.Field, "%s allows nothing on the disk; use %s, or have the administrator set maxDiskSize", v.p.where(), place.Instead)
		case size > left:
			v.Add(place.Field, "%s allows a sandbox at most %s on the disk, and with this it has more; ask for less, or have the administrator raise maxDiskSize", v.p.where(), most)
			return
		}
		sum += size
	}
}

// CheckResources returns what is asked for and more than the policy allows. It
// is for a bundle, which the policy has not seen as a manifest.
func (p *Policy) CheckResources(field string, r desired.Resources) []desired.FieldError {
	v := &check{p: p}
	v.resources(field, r)
	return v.Errors()
}
