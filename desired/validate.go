// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/desired/fields"
	"sandboxctl.dev/desired/networks"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

// FieldError is one thing wrong with a field of a manifest.
type FieldError = fields.Error

// Validator collects what is wrong with the fields of a document, also of one of another package's
// kinds.
type Validator struct{ fields.Validator }

// ValidName says whether s is a DNS-1123 label, which is what names are.
func ValidName(s string) bool { return fields.ValidName(s) }

// Smallest limits that make sense. The sentry is inside the limits of its sandbox, and one that can't run is worse than none.
const (
	MinMemory = 32 << 20
	MinCPU    = 10
	MinPIDs   = 64
)

// MinFileSpace is the least space for files that makes sense: who writes less has
// forgotten the unit.
const MinFileSpace = 1 << 20

// Largest ones that the kernel takes: processors it can be built for, and
// processes it can number.
const (
	MaxCPU  = 8192 * 1000
	MaxPIDs = 1 << 22
)

// maxGrace bounds terminationGracePeriod: a stop that was begun lasts that long.
const maxGrace = time.Hour

// maxMinReady bounds minReadySeconds to a day: one who waits longer has made a mistake.
const maxMinReady = 24 * 60 * 60

// Validate returns what is wrong with a defaulted manifest: everything, or the
// first yamldoc.MaxProblems things.
func Validate(s *Sandbox) []FieldError {
	v := &Validator{}
	if s.APIVersion != APIVersion {
		v.Add("apiVersion", "expected %s, got %q", APIVersion, s.APIVersion)
	}
	if s.Kind != Kind {
		v.Add("kind", "expected %s, got %q", Kind, s.Kind)
	}
	v.metadata(&s.Metadata)
	v.root(&s.Spec)
	if s.Spec.Hostname == s.Metadata.Name {
		// Defaulted from the name, whose problems are reported already.
		named := *s
		named.Spec.Hostname = "name"
		v.process(&named)
	} else {
		v.process(s)
	}
	v.volumes(s.Spec.Volumes)
	v.onDisk(&s.Spec)
	v.timezone(&s.Spec)
	v.surroundings(&s.Spec)
	v.lifecycle(&s.Spec)
	return v.Errors()
}

func (v *Validator) root(s *Spec) {
	set := 0
	if s.Root.Host != nil {
		set++
		if s.Overlay == OverlayNone {
			v.Add("spec.overlay", "none is not possible with root.host, which is read-only; use memory or disk")
		}
	}
	if s.Root.Dir != "" {
		set++
		v.HostPath("spec.root.dir", s.Root.Dir)
		if s.Root.Dir == "/" {
			v.Add("spec.root.dir", "the whole host is not a root; use root.host, or a directory with a root filesystem")
		}
	}
	if s.Root.Bundle != "" {
		set++
		v.HostPath("spec.root.bundle", s.Root.Bundle)
	}
	if s.Root.Image != nil {
		set++
		v.image("spec.root.image", s.Root.Image)
		if s.FileAccess == FileAccessDirect && !slices.ContainsFunc(s.Volumes, Volume.ofHost) {
			v.Add("spec.fileAccess", "direct is for files of the host; a root.image has none, nor has a volume of this sandbox: leave it out, or add a hostPath or named volume")
		}
	}
	if set != 1 {
		v.Add("spec.root", "expected exactly one of host, dir, bundle, image, got %d", set)
	}
	v.OneOf("spec.overlay", s.Overlay, OverlayMemory, OverlayDisk, OverlayNone)
	if s.OverlaySize != 0 && s.Overlay == OverlayNone {
		v.Add("spec.overlaySize", "is for overlay: memory or disk; with none nothing is written beside the root")
	}
	v.DiskSize("spec.overlaySize", s.OverlaySize)
}

func (v *Validator) surroundings(s *Spec) {
	v.OneOf("spec.platform", s.Platform, PlatformSystrap)
	v.OneOf("spec.fileAccess", s.FileAccess, FileAccessProxy, FileAccessDirect)
	if m := s.IDMappings; m != nil {
		v.idMap("spec.idMappings.uids", m.UIDs)
		v.idMap("spec.idMappings.gids", m.GIDs)
		if s.FileAccess == FileAccessDirect {
			v.Add("spec.idMappings", "is not possible with fileAccess direct: it is the gofer that maps; use proxy")
		}
	}
	v.OneOf("spec.network.mode", s.Network.Mode, networks.None, networks.Bridge, networks.Netns, networks.CNI, networks.Host)
	switch n := s.Network.Netns; {
	case s.Network.Mode == networks.Netns:
		v.NetnsName("spec.network.netns", n)
	case n != "":
		v.Add("spec.network.netns", "is for network.mode netns only, which is %s", s.Network.Mode)
	}
	s.Network.Check("spec.network", v.Add)
	v.Resources("spec.resources", s.Resources)
}

// NetnsName checks the name of a network namespace.
func (v *Validator) NetnsName(field, n string) {
	if n == "" || n == "." || n == ".." || len(n) > unix.NAME_MAX || strings.Contains(n, "/") || !yamldoc.Printable(n, "") {
		v.Add(field, "expected the name of a network namespace in /run/netns, as `ip netns` lists them, got %q", yamldoc.Clip(n))
	}
}

// Resources checks limits of a sandbox.
func (v *Validator) Resources(field string, r Resources) {
	if r.CPU != 0 && r.CPU < MinCPU {
		v.Add(field+".cpu", "expected at least %s, got %s", scalar.CPU(MinCPU), r.CPU)
	}
	if r.CPU > MaxCPU {
		v.Add(field+".cpu", "expected at most %s, got %s", scalar.CPU(MaxCPU), r.CPU)
	}
	if r.Memory != 0 && r.Memory < MinMemory {
		v.Add(field+".memory", "expected at least %s, which the sentry itself needs, got %s", scalar.Bytes(MinMemory), r.Memory)
	}
	if r.PIDs != 0 && r.PIDs < MinPIDs {
		v.Add(field+".pids", "expected at least %d, which the sentry itself needs, got %d", MinPIDs, r.PIDs)
	}
	if r.PIDs > MaxPIDs {
		v.Add(field+".pids", "expected at most %d, got %d", MaxPIDs, r.PIDs)
	}
}

// maxIDMap is how many ranges the kernel takes.
const maxIDMap = 340

func (v *Validator) idMap(field string, maps []IDMapping) {
	if len(maps) == 0 || len(maps) > maxIDMap {
		v.Add(field, "expected 1 to %d ranges {containerID, hostID, size}, got %d", maxIDMap, len(maps))
		return
	}
	root := false
	for i, a := range maps {
		if a.Size == 0 || uint64(a.ContainerID)+uint64(a.Size) > noID || uint64(a.HostID)+uint64(a.Size) > noID {
			v.Add(fmt.Sprintf("%s[%d]", field, i), "expected a size of at least 1 and ids below %d", uint32(noID))
			continue
		}
		root = root || a.ContainerID == 0
		for j, b := range maps[:i] {
			if overlap(a.ContainerID, a.Size, b.ContainerID, b.Size) || overlap(a.HostID, a.Size, b.HostID, b.Size) {
				v.Add(fmt.Sprintf("%s[%d]", field, i), "overlaps with %s[%d]", field, j)
			}
		}
	}
	if !root {
		v.Add(field, "0 must be mapped: files are served as root of the sandbox")
	}
}

func overlap(a, sizeA, b, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

func (v *Validator) lifecycle(s *Spec) {
	v.OneOf("spec.restartPolicy", s.RestartPolicy, RestartAlways, RestartOnFailure, RestartNever)
	v.Duration("spec.terminationGracePeriod", s.TerminationGracePeriod, maxGrace)
	if n := s.MinReadySeconds; n != nil && (*n < 0 || *n > maxMinReady) {
		v.Add("spec.minReadySeconds", "expected 0 to %d, got %d", maxMinReady, *n)
	}
	s.Lifetime.Check("spec", v.Add)
	s.Snapshot.Check("spec.snapshot", ValidName, v.Add)
	b := s.Backoff
	v.Duration("spec.backoff.initial", b.Initial, 24*time.Hour)
	v.Duration("spec.backoff.max", b.Max, 24*time.Hour)
	v.Duration("spec.backoff.resetAfter", b.ResetAfter, 0)
	if b.Initial != nil && b.Max != nil && *b.Max < *b.Initial {
		v.Add("spec.backoff.max", "expected at least the initial delay %s, got %s", time.Duration(*b.Initial), time.Duration(*b.Max))
	}
	if b.Limit < 0 {
		v.Add("spec.backoff.limit", "expected 0 (no limit) or more, got %d", b.Limit)
	}
}

// Duration checks a duration that may be left out; most is 0 if it may be any.
func (v *Validator) Duration(field string, d *scalar.Duration, most time.Duration) {
	switch {
	case d == nil:
	case *d < 0:
		v.Add(field, "expected 0s or more, got %s", time.Duration(*d))
	case most > 0 && time.Duration(*d) > most:
		v.Add(field, "expected at most %s, got %s", most, time.Duration(*d))
	}
}
