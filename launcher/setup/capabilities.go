// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/wire"
)

// CapabilityNames are the capabilities this program knows, as OCI writes them.
func CapabilityNames() []string {
	out := slices.Clone(desired.CapabilityNames())
	for i, n := range out {
		out[i] = "CAP_" + n
	}
	return out
}

// checkCapabilities refuses names that are no capability's.
func checkCapabilities(c *specs.LinuxCapabilities) error {
	if c == nil {
		return nil
	}
	known := CapabilityNames()
	for _, set := range []struct {
		name  string
		names []string
	}{
		{"bounding", c.Bounding},
		{"effective", c.Effective},
		{"permitted", c.Permitted},
		{"inheritable", c.Inheritable},
		{"ambient", c.Ambient},
	} {
		for i, n := range set.names {
			if !slices.Contains(known, n) {
				return fmt.Errorf("process.capabilities.%s[%d]: %q is not a capability; expected one such as CAP_KILL", set.name, i, n)
			}
		}
	}
	return nil
}

// settable are the capabilities of a process as Linux lets them be set: one is
// ambient only if it is permitted and inheritable as well. gVisor takes the list
// as it is, and users without privileges would have what others trust them not to.
func settable(c *specs.LinuxCapabilities) *specs.LinuxCapabilities {
	if c == nil {
		return &specs.LinuxCapabilities{}
	}
	out := *c
	out.Ambient = slices.DeleteFunc(slices.Clone(c.Ambient), func(n string) bool {
		return !slices.Contains(c.Permitted, n) || !slices.Contains(c.Inheritable, n)
	})
	return &out
}

// RawSockets says whether a container may have raw sockets: those of gVisor's own
// network stack. Of the host's they would be the host's.
func RawSockets(cfg *specs.Spec) bool {
	c := cfg.Process.Capabilities
	if c == nil || !slices.Contains(c.Bounding, "CAP_"+netRaw) || cfg.Linux == nil {
		return false
	}
	return slices.ContainsFunc(cfg.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.NetworkNamespace })
}

// netRaw is left out where the sentry runs without raw sockets.
const netRaw = "NET_RAW"

func taskCapabilities(c *specs.LinuxCapabilities, raw bool) *wire.TaskCapabilities {
	mask := func(names []string) uint64 { return capabilityMask(names, raw) }
	return &wire.TaskCapabilities{
		PermittedCaps: mask(c.Permitted), InheritableCaps: mask(c.Inheritable),
		EffectiveCaps: mask(c.Effective), BoundingCaps: mask(c.Bounding), AmbientCaps: mask(c.Ambient),
	}
}

func capabilityMask(names []string, raw bool) uint64 {
	var m uint64
	for _, n := range names {
		n = strings.TrimPrefix(strings.ToUpper(n), "CAP_")
		if bit := slices.Index(desired.CapabilityNames(), n); bit >= 0 && (raw || n != netRaw) {
			m |= 1 << bit
		}
	}
	return m
}

func capabilities(c *desired.Capabilities) *specs.LinuxCapabilities {
	set := slices.Clone(desired.DefaultCapabilities)
	if c != nil {
		for _, d := range c.Drop {
			if strings.EqualFold(d, "ALL") {
				set = nil
				break
			}
			set = slices.DeleteFunc(set, func(n string) bool { return n == capName(d) })
		}
		for _, a := range c.Add {
			if n := capName(a); !slices.Contains(set, n) {
				set = append(set, n)
			}
		}
	}
	slices.Sort(set)
	return &specs.LinuxCapabilities{Bounding: set, Effective: set, Permitted: set}
}

func capName(n string) string { return "CAP_" + strings.TrimPrefix(strings.ToUpper(n), "CAP_") }
