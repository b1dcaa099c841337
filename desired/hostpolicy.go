// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"sandboxctl.dev/desired/yamldoc"
)

// DefaultPolicyPath is where the host policy is looked for.
const DefaultPolicyPath = "/etc/sandboxctl/policy.yaml"

// SharedDir is the one directory that manifests may share without a policy
// file. It is the administrator's to make.
const SharedDir = "/srv/sandboxctl"

// HostPolicy is what the administrator of a host lets manifests ask for. It
// covers every field of a manifest that reaches beyond the sandbox; what is in
// no field here is a matter of the sandbox alone.
//
// A field that the file leaves out is as it is without a file (see
// DefaultHostPolicy): an empty list allows nothing.
type HostPolicy struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// HostPaths are the directories (or files) of which spec.volumes[].hostPath
	// and the bind mounts of bundles may be, with what is below them.
	HostPaths []AllowedPath `json:"hostPaths,omitempty"`
	Root      RootPolicy    `json:"root,omitzero"`
	Network   NetworkPolicy `json:"network,omitzero"`
	// Capabilities may be added to DefaultCapabilities; ALL is any.
	Capabilities []string `json:"capabilities,omitempty"`
	Platforms    []string `json:"platforms,omitempty"`
	FileAccess   []string `json:"fileAccess,omitempty"`
	// RootUser says whether applications may run as user 0 of their sandbox.
	RootUser *bool `json:"rootUser,omitempty"`
	// MinHostID, if not 0, makes spec.idMappings necessary and is the lowest id
	// of the host that they may map to: no sandbox acts on files as a user of
	// the host then.
	MinHostID uint32 `json:"minHostID,omitempty"`
	// DefaultResources are the limits of a sandbox that does not ask for its own,
	// MaxResources the most that it may ask for.
	DefaultResources Resources `json:"defaultResources,omitzero"`
	MaxResources     Resources `json:"maxResources,omitzero"`
	// LogSize is the size at which a log file of a sandbox is rotated.
	LogSize Bytes `json:"logSize,omitempty"`
	// MaxSandboxes is how many sandboxes there may be; 0 is any number.
	MaxSandboxes int `json:"maxSandboxes,omitempty"`
	// MinRestartDelay is the least delay after a failure, whatever spec.backoff says.
	MinRestartDelay *Duration `json:"minRestartDelay,omitempty"`
	// MaxStartsPerSecond bounds the starts that nobody asked for, of all sandboxes
	// together.
	MaxStartsPerSecond int `json:"maxStartsPerSecond,omitempty"`
	// MaxStartTime bounds a start, with its hooks or the restore of a checkpoint.
	MaxStartTime *Duration `json:"maxStartTime,omitempty"`
	// MaxHookTime bounds the hooks that a bundle has for one point of its life,
	// together, whatever their own timeouts are.
	MaxHookTime *Duration `json:"maxHookTime,omitempty"`

	from      string // the file, "" for none
	digest    string
	protected []string
	own       string // tells one list of protected paths from another
}

// policySchema is what there is to say about the types of a policy.
var policySchema = SchemaOf(yamldoc.Schema{
	Type: reflect.TypeFor[HostPolicy](),
	Required: map[reflect.Type]map[string]string{
		reflect.TypeFor[HostPolicy]():  {"apiVersion": APIVersion, "kind": PolicyKind},
		reflect.TypeFor[AllowedPath](): {"path": "an absolute path of the host", "access": AccessReadOnly + " or " + AccessReadWrite},
	},
	Examples: map[reflect.Type]string{
		reflect.TypeFor[AllowedPath]():   `{path: /srv/sandboxctl, access: readOnly}`,
		reflect.TypeFor[RootPolicy]():    `{dirs: [{path: /srv/sandboxctl, access: readOnly}]}`,
		reflect.TypeFor[NetworkPolicy](): `{netns: [shop]}`,
	},
	ListExamples: map[string]string{
		"netns":        `[shop]`,
		"capabilities": `[NET_ADMIN]`,
		"platforms":    `[systrap]`,
		"fileAccess":   `[proxy]`,
	},
})

// policyKinds are the kinds of documents that a policy file may hold.
var policyKinds = Kinds{{APIVersion: APIVersion, Kind: PolicyKind, What: "a document of kind " + PolicyKind, Schema: policySchema}}

// Values of AllowedPath.Access.
const (
	AccessReadOnly  = "readOnly"
	AccessReadWrite = "readWrite"
)

// AllowedPath is a path of the host, with everything below it, and what may be
// done there.
type AllowedPath struct {
	Path   string `json:"path"`
	Access string `json:"access"`
}

// RootPolicy says what spec.root may be.
type RootPolicy struct {
	Host *bool `json:"host,omitempty"` // root.host
	// Dirs and Bundles are where root.dir and root.bundle may be; readOnly
	// refuses overlay none, which writes there.
	Dirs    []AllowedPath `json:"dirs,omitempty"`
	Bundles []AllowedPath `json:"bundles,omitempty"`
	// Hooks lets bundles have hooks, which run as root on the host.
	Hooks bool `json:"hooks,omitempty"`
}

// NetworkPolicy says what spec.network may be. mode none always may.
type NetworkPolicy struct {
	// Host allows mode host: every port of the host, those below 1024 too.
	Host bool `json:"host,omitempty"`
	// Netns are the names in /run/netns for mode netns; "*" is any.
	Netns []string `json:"netns,omitempty"`
}

// DefaultCapabilities is what root of a sandbox may do inside its sandbox
// unless its manifest says otherwise: the set container engines agree on.
var DefaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// DefaultHostPolicy is the policy of a host without a policy file: programs of
// the host and what the administrator put into SharedDir, no network but its
// own loopback, every file operation through a gofer.
func DefaultHostPolicy() *HostPolicy {
	p := &HostPolicy{APIVersion: APIVersion, Kind: PolicyKind, digest: "built-in"}
	p.fill()
	return p
}

// fill gives the fields that a file left out their defaults.
func (p *HostPolicy) fill() {
	shared := []AllowedPath{{SharedDir, AccessReadWrite}}
	yes := true
	for _, l := range []*[]AllowedPath{&p.HostPaths, &p.Root.Dirs, &p.Root.Bundles} {
		if *l == nil {
			*l = shared
		}
	}
	if p.Root.Host == nil {
		p.Root.Host = &yes
	}
	if p.RootUser == nil {
		p.RootUser = &yes
	}
	if p.Platforms == nil {
		p.Platforms = []string{PlatformSystrap}
	}
	if p.FileAccess == nil {
		p.FileAccess = []string{FileAccessProxy}
	}
	p.fillLimits(hostMemory())
	p.fillPace()
}

// Source is the file that the policy is from, or "built-in".
func (p *HostPolicy) Source() string {
	if p.from == "" {
		return "built-in"
	}
	return p.from
}

// Digest changes whenever the policy does, or what is never shared.
func (p *HostPolicy) Digest() string { return p.digest + p.own }

// Protected are the paths that are never shared with a sandbox, with every link
// that leads to them. A directory may have other paths too, by bind mounts: who
// shares one compares what it is.
func (p *HostPolicy) Protected() []string { return slices.Clone(p.protected) }

// where tells an author where what is allowed is written down.
func (p *HostPolicy) where() string {
	if p.from == "" {
		return "the built-in host policy (" + DefaultPolicyPath + " would change it)"
	}
	return "the host policy " + p.from
}

// Validate returns everything that is wrong with a policy.
func (p *HostPolicy) Validate() []FieldError {
	v := &validator{}
	if p.APIVersion != APIVersion {
		v.add("apiVersion", "expected %s, got %q", APIVersion, yamldoc.Clip(p.APIVersion))
	}
	if p.Kind != PolicyKind {
		v.add("kind", "expected %s, got %q", PolicyKind, yamldoc.Clip(p.Kind))
	}
	v.allowedPaths("hostPaths", p.HostPaths)
	v.allowedPaths("root.dirs", p.Root.Dirs)
	v.allowedPaths("root.bundles", p.Root.Bundles)
	for i, n := range p.Network.Netns {
		if n != "*" {
			v.netnsName(fmt.Sprintf("network.netns[%d]", i), n)
		}
	}
	for i, n := range p.Capabilities {
		if !strings.EqualFold(n, "ALL") {
			v.capability(fmt.Sprintf("capabilities[%d]", i), n)
		}
	}
	for i, n := range p.Platforms {
		// A policy may allow already what no manifest can ask for yet.
		if !slices.Contains(planned["spec.platform"], n) {
			v.oneOf(fmt.Sprintf("platforms[%d]", i), n, PlatformSystrap)
		}
	}
	for i, n := range p.FileAccess {
		v.oneOf(fmt.Sprintf("fileAccess[%d]", i), n, FileAccessProxy, FileAccessDirect)
	}
	v.policyLimits(p)
	if p.MaxSandboxes < 0 {
		v.add("maxSandboxes", "expected 0 (any number) or more, got %d", p.MaxSandboxes)
	}
	v.pace(p)
	return v.errs
}

func (v *validator) allowedPaths(field string, list []AllowedPath) {
	seen := map[string]bool{}
	for i, a := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		v.hostPath(at+".path", a.Path)
		if a.Path == "/" {
			v.add(at+".path", "the whole host can't be allowed; name the directories that sandboxes need")
		}
		if seen[a.Path] {
			v.add(at+".path", "%s is given twice; remove one of them", yamldoc.Clip(a.Path))
		}
		seen[a.Path] = true
		v.oneOf(at+".access", a.Access, AccessReadOnly, AccessReadWrite)
		for _, b := range list {
			// It would not be read-only: who has the outer one writes it.
			if a.Access == AccessReadOnly && b.Access == AccessReadWrite && a.Path != b.Path && pathWithin(a.Path, b.Path) {
				v.add(at+".access", "%s is below %s, which may be written, this with it; expected readWrite for both, or paths that do not hold each other", yamldoc.Clip(a.Path), yamldoc.Clip(b.Path))
			}
		}
	}
}

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
)

func (p *HostPolicy) list(kind string) []AllowedPath {
	switch kind {
	case VolumePath:
		return p.HostPaths
	case DirPath:
		return p.Root.Dirs
	}
	return p.Root.Bundles
}

// AllowedRoot returns the path of the policy that allows a clean path of the
// host to be shared, as one of the kinds above, to read or to write. The path is
// opened below that, following nothing. The error says what is allowed and what
// to do.
func (p *HostPolicy) AllowedRoot(kind, hostPath string, write bool) (string, error) {
	for _, own := range p.protected {
		if pathWithin(hostPath, own) || pathWithin(own, hostPath) {
			return "", fmt.Errorf("%s is never shared with a sandbox: %s is sandboxctl's own; name another directory", yamldoc.Clip(hostPath), own)
		}
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
func (p *HostPolicy) CapabilityAllowed(name string) bool {
	n := capabilityName(name)
	return slices.Contains(DefaultCapabilities, n) || slices.ContainsFunc(p.Capabilities, func(c string) bool {
		return strings.EqualFold(c, "ALL") || capabilityName(c) == n
	})
}

func capabilityName(n string) string { return "CAP_" + strings.TrimPrefix(strings.ToUpper(n), "CAP_") }

// Check returns everything that a defaulted manifest asks for and the policy
// does not allow. What a bundle asks for is not in the manifest: it is judged
// when the bundle is read.
func (p *HostPolicy) Check(s *Sandbox) []FieldError {
	v := &policyCheck{p: p}
	v.root(&s.Spec)
	for i, vol := range s.Spec.Volumes {
		if vol.HostPath != "" && path.IsAbs(vol.HostPath) {
			v.allowed(fmt.Sprintf("spec.volumes[%d].hostPath", i), VolumePath, vol.HostPath, !vol.ReadOnly)
		}
	}
	v.network(&s.Spec.Network)
	if c := s.Spec.Capabilities; c != nil {
		for i, n := range c.Add {
			if !p.CapabilityAllowed(n) {
				v.add(fmt.Sprintf("spec.capabilities.add[%d]", i), "%s does not allow %s; allowed besides the default ones: %s; remove it, or have the administrator add it to capabilities", p.where(), yamldoc.Clip(n), listed(p.Capabilities))
			}
		}
	}
	v.oneOf("spec.platform", "platforms", s.Spec.Platform, p.Platforms)
	v.oneOf("spec.fileAccess", "fileAccess", s.Spec.FileAccess, p.FileAccess)
	v.user(&s.Spec)
	v.ids(s.Spec.IDMappings)
	v.resources("spec.resources", s.Spec.Resources)
	return v.errs
}

type policyCheck struct {
	validator
	p *HostPolicy
}

func listed(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func (v *policyCheck) allowed(field, kind, hostPath string, write bool) {
	if _, err := v.p.AllowedRoot(kind, hostPath, write); err != nil {
		v.add(field, "%v", err)
	}
}

func (v *policyCheck) root(s *Spec) {
	if s.Root.Host != nil && !*v.p.Root.Host {
		v.add("spec.root.host", "%s does not allow a view of the host; use root.dir, or have the administrator set root.host", v.p.where())
	}
	write := s.Overlay == OverlayNone
	if s.Root.Dir != "" {
		v.allowed("spec.root.dir", DirPath, s.Root.Dir, write)
	}
	if s.Root.Bundle != "" {
		v.allowed("spec.root.bundle", BundlePath, s.Root.Bundle, write)
	}
}

func (v *policyCheck) network(n *Network) {
	switch n.Mode {
	case NetworkHost:
		if !v.p.Network.Host {
			v.add("spec.network.mode", "%s does not allow the host's network; use none, or have the administrator set network.host", v.p.where())
		}
	case NetworkNetns:
		if allowed := v.p.Network.Netns; !slices.Contains(allowed, "*") && !slices.Contains(allowed, n.Netns) {
			v.add("spec.network.netns", "%s does not allow the network namespace %q; allowed: %s; use another one, or have the administrator add it to network.netns", v.p.where(), yamldoc.Clip(n.Netns), listed(allowed))
		}
	}
}

func (v *policyCheck) oneOf(field, of, s string, allowed []string) {
	if !slices.Contains(allowed, s) {
		v.add(field, "%s does not allow %s; allowed: %s; use one of these, or have the administrator add it to %s", v.p.where(), yamldoc.Clip(s), listed(allowed), of)
	}
}

// user: the default is root; the user of a bundle is judged when it is read.
func (v *policyCheck) user(s *Spec) {
	if *v.p.RootUser || s.Root.Bundle != "" {
		return
	}
	if s.User == nil || s.User.UID == 0 {
		v.add("spec.user", "%s does not allow applications to run as root of their sandbox; set user: {uid, gid} to others than 0, or have the administrator set rootUser", v.p.where())
	}
}

func (v *policyCheck) ids(m *IDMappings) {
	lowest := v.p.MinHostID
	if lowest == 0 {
		return
	}
	if m == nil {
		v.add("spec.idMappings", "is missing: %s wants sandboxes to act on files as ids of the host from %d; map them there", v.p.where(), lowest)
		return
	}
	for _, l := range []struct {
		field string
		maps  []IDMapping
	}{{"spec.idMappings.uids", m.UIDs}, {"spec.idMappings.gids", m.GIDs}} {
		for i, r := range l.maps {
			if r.HostID < lowest {
				v.add(fmt.Sprintf("%s[%d].hostID", l.field, i), "%s allows ids of the host from %d, got %d; map to others", v.p.where(), lowest, r.HostID)
			}
		}
	}
}

func (v *policyCheck) resources(field string, r Resources) {
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
			v.add(field+"."+l.field, "%s allows at most %s; ask for less, or have the administrator raise maxResources.%s", v.p.where(), l.text, l.field)
		}
	}
}
