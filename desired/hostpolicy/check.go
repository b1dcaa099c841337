// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/fields"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/desired/yamldoc"
)

// within says whether a clean path is dir or below it.
func pathWithin(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// find returns the allowed path of a list that covers a path, the one that
// allows most, nil if none does.
func find(list []AllowedPath, p string) *AllowedPath {
	var best *AllowedPath
	for i := range list {
		a := &list[i]
		if pathWithin(p, a.Path) && (best == nil || a.Access == AccessReadWrite && best.Access == AccessReadOnly) {
			best = a
		}
	}
	return best
}

func paths(list []AllowedPath) string {
	if len(list) == 0 {
		return "none"
	}
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.Path
		if a.Access == AccessReadOnly {
			out[i] += " (read-only)"
		}
	}
	return strings.Join(out, ", ")
}

// Kinds of paths that a policy allows.
const (
	VolumePath = "hostPaths"
	DirPath    = "root.dirs"
	BundlePath = "root.bundles"
	ImagePath  = "root.imagePaths"
)

func (p *Policy) list(kind string) []AllowedPath {
	switch kind {
	case VolumePath:
		return p.HostPaths
	case DirPath:
		return p.Root.Dirs
	case ImagePath:
		return p.Root.ImagePaths
	}
	return p.Root.Bundles
}

// AllowedRoot returns the path of the policy that allows a clean path of the
// host to be shared, as one of the kinds above, to read or to write. The path is
// opened below that, following nothing. The error says what is allowed and what
// to do.
func (p *Policy) AllowedRoot(kind, hostPath string, write bool) (string, error) {
	for _, own := range p.protected {
		if pathWithin(hostPath, own) || pathWithin(own, hostPath) {
			return "", fmt.Errorf("%s is never shared with a sandbox: %s is sandboxctl's own; name another directory", yamldoc.Clip(hostPath), own)
		}
	}
	for _, file := range p.trusted {
		if write && (pathWithin(hostPath, file) || pathWithin(file, hostPath)) {
			return "", fmt.Errorf("%s can't be written by a sandbox: this host believes registries by what is in %s; name another directory, or share it to be read only", yamldoc.Clip(hostPath), file)
		}
	}
	if dir := p.Network.CNI.startsFrom(hostPath); write && dir != "" {
		return "", fmt.Errorf("%s can't be written by a sandbox: what is in %s decides which plugins of CNI run as root here; name another directory, or share it to be read only", yamldoc.Clip(hostPath), dir)
	}
	a := find(p.list(kind), hostPath)
	switch {
	case a == nil:
		return "", fmt.Errorf("%s does not allow %s; allowed: %s; move it there, or have the administrator add it to %s", p.where(), yamldoc.Clip(hostPath), paths(p.list(kind)), kind)
	case write && a.Access != AccessReadWrite && kind == VolumePath:
		return "", fmt.Errorf("%s allows %s to be read only; set readOnly: true, or have the administrator set access: readWrite", p.where(), a.Path)
	case write && a.Access != AccessReadWrite:
		return "", fmt.Errorf("%s allows %s to be read only; use overlay: memory, or have the administrator set access: readWrite", p.where(), a.Path)
	}
	return a.Path, nil
}

// CapabilityAllowed says whether a capability may be given to an application.
func (p *Policy) CapabilityAllowed(name string) bool {
	n := capabilityName(name)
	return slices.Contains(desired.DefaultCapabilities, n) || slices.ContainsFunc(p.Capabilities, func(c string) bool {
		return strings.EqualFold(c, "ALL") || capabilityName(c) == n
	})
}

func capabilityName(n string) string { return "CAP_" + strings.TrimPrefix(strings.ToUpper(n), "CAP_") }

// Check returns everything that a defaulted manifest asks for and the policy
// does not allow. What a bundle asks for is not in the manifest: it is judged
// when the bundle is read.
func (p *Policy) Check(s *desired.Sandbox) []desired.FieldError {
	v := &check{p: p}
	v.root(&s.Spec)
	for i, vol := range s.Spec.Volumes {
		if vol.HostPath != "" && path.IsAbs(vol.HostPath) {
			v.allowed(fmt.Sprintf("spec.volumes[%d].hostPath", i), VolumePath, vol.Source(), !vol.ReadOnly)
			v.owner(fmt.Sprintf("spec.volumes[%d].ownership", i), &vol)
		}
		if vol.Volume != nil {
			v.namedVolume(fmt.Sprintf("spec.volumes[%d].volume", i))
		}
	}
	v.files(s.Spec.FileRefs())
	v.network(&s.Spec.Network)
	if c := s.Spec.Capabilities; c != nil {
		for i, n := range c.Add {
			if !p.CapabilityAllowed(n) {
				v.Add(fmt.Sprintf("spec.capabilities.add[%d]", i), "%s does not allow %s; allowed besides the default ones: %s; remove it, or have the administrator add it to capabilities", p.where(), yamldoc.Clip(n), listed(p.Capabilities))
			}
		}
	}
	v.oneOf("spec.platform", "platforms", s.Spec.Platform, p.Platforms)
	v.oneOf("spec.fileAccess", "fileAccess", s.Spec.FileAccess, p.FileAccess)
	v.user(&s.Spec)
	v.ids(s.Spec.IDMappings)
	v.resources("spec.resources", s.Spec.Resources)
	v.diskSizes(&s.Spec)
	v.snapshot(s.Spec.Snapshot)
	return v.Errors()
}

// CheckFiles returns which files of the host may not be read for a document.
func (p *Policy) CheckFiles(refs []desired.FileRef) []desired.FieldError {
	v := &check{p: p}
	v.files(refs)
	return v.Errors()
}

// owner judges whether a directory of the host may be given to another owner.
func (v *check) owner(field string, vol *desired.Volume) {
	if vol.Ownership == nil || slices.ContainsFunc(v.p.HostPaths, func(a AllowedPath) bool { return a.ChangeOwner && pathWithin(vol.Source(), a.Path) }) {
		return
	}
	v.Add(field, "%s does not allow owners of files of the host to be changed there; chown %s on the host, use a named volume, or have the administrator set changeOwner: true in hostPaths", v.p.where(), yamldoc.Clip(vol.Source()))
}

// CheckVolume returns why there may be no named volumes, at a field.
func (p *Policy) CheckVolume(field string) []desired.FieldError {
	v := &check{p: p}
	v.namedVolume(field)
	return v.Errors()
}

// CheckNetwork returns why there may be no networks of sandboxes, at a field.
func (p *Policy) CheckNetwork(field string) []desired.FieldError {
	v := &check{p: p}
	v.bridge(field)
	return v.Errors()
}

func (v *check) namedVolume(field string) {
	if !*v.p.NamedVolumes {
		v.Add(field, "%s does not allow named volumes; use hostPath, or have the administrator set namedVolumes", v.p.where())
	}
}

// files: documents that a manifest refers to are no files; theirs are judged with them.
func (v *check) files(refs []desired.FileRef) {
	for _, f := range refs {
		if path.IsAbs(f.Path) {
			v.allowed(f.Field, VolumePath, f.Path, false)
		}
	}
}

type check struct {
	desired.Validator
	p *Policy
}

func listed(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func (v *check) allowed(field, kind, hostPath string, write bool) {
	if _, err := v.p.AllowedRoot(kind, hostPath, write); err != nil {
		v.Add(field, "%v", err)
	}
}

func (v *check) root(s *desired.Spec) {
	if s.Root.Host != nil && !*v.p.Root.Host {
		v.Add("spec.root.host", "%s does not allow a view of the host; use root.dir, or have the administrator set root.host", v.p.where())
	}
	write := s.Overlay == desired.OverlayNone
	if s.Root.Dir != "" {
		v.allowed("spec.root.dir", DirPath, s.Root.Dir, write)
	}
	if s.Root.Bundle != "" {
		v.allowed("spec.root.bundle", BundlePath, s.Root.Bundle, write)
	}
	if s.Root.Image != nil {
		v.image("spec.root.image.ref", s.Root.Image)
	}
}

// image: what the image itself says, its user for one, is judged when it is known.
func (v *check) image(field string, i *desired.ImageRoot) {
	r, err := imageref.Parse(i.Ref)
	switch {
	case err != nil: // it is not valid, which is told elsewhere
	case r.Kind == imageref.Local: // the administrator has imported it
	case r.Kind != imageref.Registry:
		v.allowed(field, ImagePath, r.Path, false)
	case !v.p.ImageAllowed(r):
		v.Add(field, "%s does not allow images from %s; allowed: %s; use another one, or have the administrator add it to root.images", v.p.where(), yamldoc.Clip(r.Name()), registries(v.p.Root.Images))
	}
}

// registries describes root.images: what AnyImage stands for is not obvious.
func registries(list []string) string {
	words := slices.Clone(list)
	for i, l := range words {
		if l == AnyImage {
			words[i] = "any registry with a domain name and no port"
		}
	}
	return listed(words)
}

// ImageAllowed says whether images of a name in a registry may be fetched.
func (p *Policy) ImageAllowed(r imageref.Reference) bool { return namesImage(p.Root.Images, r) }

// namesImage says whether a list as root.images names an image of a registry.
func namesImage(list []string, r imageref.Reference) bool {
	return slices.ContainsFunc(list, func(allowed string) bool {
		if allowed == AnyImage {
			return publicName(r.Registry)
		}
		return pathWithin(r.Name(), allowed)
	})
}

// publicName says whether a registry has a domain name and the usual port. Who
// writes a manifest must not have the daemon talk to addresses and ports inside of
// the host and its network, unless they are named in the policy.
func publicName(registry string) bool {
	return strings.Contains(registry, ".") && !strings.ContainsAny(registry, ":[") && net.ParseIP(registry) == nil
}

func (v *check) oneOf(field, of, s string, allowed []string) {
	// That a later version will take a value is told elsewhere: to allow it now helps nobody.
	if !slices.Contains(allowed, s) && !fields.IsPlanned(field, s) {
		v.Add(field, "%s does not allow %s; allowed: %s; use one of these, or have the administrator add it to %s", v.p.where(), yamldoc.Clip(s), listed(allowed), of)
	}
}

// user: the default is root; the user of a bundle, and one that an image knows, are
// judged when they are read.
func (v *check) user(s *desired.Spec) {
	if *v.p.RootUser || s.Root.Bundle != "" || s.Root.Image != nil && (s.User == nil || s.User.Name != "") {
		return
	}
	if s.User == nil || s.User.UID == nil || *s.User.UID == 0 {
		v.Add("spec.user", "%s does not allow applications to run as root of their sandbox; set user: {uid, gid} to others than 0, or have the administrator set rootUser", v.p.where())
	}
}

func (v *check) ids(m *desired.IDMappings) {
	lowest := v.p.MinHostID
	if lowest == 0 {
		return
	}
	if m == nil {
		v.Add("spec.idMappings", "is missing: %s wants sandboxes to act on files as ids of the host from %d; map them there", v.p.where(), lowest)
		return
	}
	for _, l := range []struct {
		field string
		maps  []desired.IDMapping
	}{{"spec.idMappings.uids", m.UIDs}, {"spec.idMappings.gids", m.GIDs}} {
		for i, r := range l.maps {
			if r.HostID < lowest {
				v.Add(fmt.Sprintf("%s[%d].hostID", l.field, i), "%s allows ids of the host from %d, got %d; map to others", v.p.where(), lowest, r.HostID)
			}
		}
	}
}

func (v *check) resources(field string, r desired.Resources) {
	m := v.p.MaxResources
	for _, l := range []struct {
		field     string
		got, most int64
		text      string
	}{
		{"cpu", int64(r.CPU), int64(m.CPU), m.CPU.String()},
		{"memory", int64(r.Memory), int64(m.Memory), m.Memory.String()},
		{"pids", r.PIDs, m.PIDs, fmt.Sprint(m.PIDs)},
	} {
		if l.most != 0 && l.got > l.most {
			v.Add(field+"."+l.field, "%s allows at most %s; ask for less, or have the administrator raise maxResources.%s", v.p.where(), l.text, l.field)
		}
	}
}
