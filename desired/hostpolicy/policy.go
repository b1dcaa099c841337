// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/fields"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

// DefaultPath is where the host policy is looked for.
const DefaultPath = "/etc/sandboxctl/policy.yaml"

// SharedDir is the one directory that manifests may share without a policy
// file. It is the administrator's to make.
const SharedDir = "/srv/sandboxctl"

// Policy is what the administrator of a host lets manifests ask for. It
// covers every field of a manifest that reaches beyond the sandbox; what is in
// no field here is a matter of the sandbox alone.
//
// A field that the file leaves out is as it is without a file (see
// Default): an empty list allows nothing.
//
// The comments of the fields are the table of docs/reference/policy.md.
type Policy struct {
	// `sandboxctl.dev/v1alpha1`.
	APIVersion string `json:"apiVersion"`
	// `HostPolicy`.
	Kind string `json:"kind"`
	// Directories or files that `volumes[].hostPath`, `files` of a `config` or `secret`,
	// `envFrom[].file` and the bind mounts of bundles may name, with everything below them. Default: `/srv/sandboxctl`, `readWrite`.
	HostPaths []AllowedPath `json:"hostPaths,omitempty"`
	// Manifests may have named volumes. They are in the state directory, of any size, and each
	// manifest may name any of them.
	NamedVolumes *bool `json:"namedVolumes,omitempty"`
	// What `spec.root` may be.
	Root RootPolicy `json:"root,omitzero"`
	// What `spec.network` may be; `mode: none` is always allowed.
	Network NetworkPolicy `json:"network,omitzero"`
	// What manifests and bundles may add to the default capabilities; `ALL` is any.
	// Default: none.
	Capabilities []string `json:"capabilities,omitempty"`
	// Values of `spec.platform`.
	Platforms []string `json:"platforms,omitempty"`
	// Values of `spec.fileAccess`.
	FileAccess []string `json:"fileAccess,omitempty"`
	// Applications may run as user 0 of their sandbox.
	RootUser *bool `json:"rootUser,omitempty"`
	// If set, every sandbox must have `idMappings`, to ids of the host from here on: no
	// sandbox then acts on files as a user of the host. Default: not set.
	MinHostID uint32 `json:"minHostID,omitempty"`
	// The limits of a sandbox whose manifest or bundle asks for none: `cpu`, `memory`,
	// `pids`. Default: half of the host's memory, 2048 pids; `maxResources` where that is
	// less.
	DefaultResources desired.Resources `json:"defaultResources,omitzero"`
	// The most that a manifest or bundle may ask for: `cpu`, `memory`, `pids`. Default: the
	// host's memory, 8192 pids.
	MaxResources desired.Resources `json:"maxResources,omitzero"`
	// The size of each `emptyDir` on the disk, and of what `overlay: disk` writes, where the
	// manifest says none; `maxDiskSize` where that is less.
	DefaultDiskSize scalar.Bytes `json:"defaultDiskSize,omitempty"`
	// How much the `emptyDir` volumes of one sandbox and what `overlay: disk` writes may take
	// together on the disk of the state directory. 0 allows none of them.
	MaxDiskSize *scalar.Bytes `json:"maxDiskSize,omitempty"`
	// Snapshots, which are made by root and hold all that is in the memory of a sandbox.
	Snapshots SnapshotPolicy `json:"snapshots,omitzero"`
	// The size at which a log file of a sandbox is rotated; two are kept.
	LogSize scalar.Bytes `json:"logSize,omitempty"`
	// How many sandboxes there may be, stopped ones included; what is there makes no room
	// for what is new. Default: any number.
	MaxSandboxes int `json:"maxSandboxes,omitempty"`
	// The least delay after a failure, whatever `spec.backoff` says.
	MinRestartDelay *scalar.Duration `json:"minRestartDelay,omitempty"`
	// 1 to 1000: starts that nobody asked for (after an exit, a failure, a reboot) in any
	// second, of all sandboxes together.
	MaxStartsPerSecond int `json:"maxStartsPerSecond,omitempty"`
	// How long one start may take, with its hooks or the restore of a checkpoint; then it
	// is a failed start.
	MaxStartTime *scalar.Duration `json:"maxStartTime,omitempty"`
	// How long the hooks that a bundle has for one point of its life may take together,
	// whatever their own timeouts are; then they are killed.
	MaxHookTime *scalar.Duration `json:"maxHookTime,omitempty"`
	// 0 to 64: sentries with gofers that the daemon keeps waiting, so that a sandbox starts
	// sooner. Each pair takes about 6 MiB, and one waits for each 256 MiB of memory that the host has
	// free at most. 0 keeps none.
	Warm *int `json:"warm,omitempty"`
	// 0 to 64: places that all [SandboxPools](../guide/pools.md) together may keep ready, besides
	// `warm`. Each takes what such a pair does.
	MaxPoolPlaces *int `json:"maxPoolPlaces,omitempty"`
	// The socket of clients: who beside root may run commands in sandboxes of their own from programs, and what for.
	Clients ClientsPolicy `json:"clients,omitzero"`
	// 0 to 64: sentries that have booted a kernel already, with gofers, that the daemon keeps
	// waiting beside those of `warm`. A sandbox that can take one starts sooner still. Each
	// takes about 8 MiB. 0 keeps none. There is none where no sandbox could take one: where sandboxes
	// have a limit of `cpu`, or one of `memory` below 1 GiB, by `defaultResources` or `maxResources`.
	WarmKernels *int `json:"warmKernels,omitempty"`

	from      string // the file, "" for none
	digest    string
	protected []string
	trusted   []string
	own       string // tells protected and trusted paths from others
}

// schema is what there is to say about the types of a policy.
var schema = desired.SchemaOf(func() yamldoc.Schema {
	return yamldoc.Schema{
		Type: reflect.TypeFor[Policy](),
		Required: map[reflect.Type]map[string]string{
			reflect.TypeFor[Policy]():      {"apiVersion": desired.APIVersion, "kind": desired.PolicyKind},
			reflect.TypeFor[AllowedPath](): {"path": "an absolute path of the host", "access": AccessReadOnly + " or " + AccessReadWrite},
		},
		Examples: map[reflect.Type]string{
			reflect.TypeFor[AllowedPath]():   `{path: /srv/sandboxctl, access: readOnly}`,
			reflect.TypeFor[RootPolicy]():    `{dirs: [{path: /srv/sandboxctl, access: readOnly}]}`,
			reflect.TypeFor[NetworkPolicy](): `{netns: [shop]}`,
			reflect.TypeFor[CNIPolicy]():     `{networks: [podman]}`,
			reflect.TypeFor[PortsPolicy]():   `{min: 1024, addresses: [127.0.0.1]}`,
			reflect.TypeFor[ClientsPolicy](): `{group: sandboxes, maxRuns: 16}`,
			snapshotType:                     `{names: [python-*]}`,
		},
		ListExamples: map[string]string{
			"names":        `[python-*]`,
			"netns":        `[shop]`,
			"networks":     `[podman]`,
			"pluginDirs":   `[/opt/cni/bin]`,
			"images":       `[docker.io/library, ghcr.io]`,
			"addresses":    `[127.0.0.1]`,
			"pool":         `[10.208.0.0/12]`,
			"deny":         `[private]`,
			"capabilities": `[NET_ADMIN]`,
			"platforms":    `[systrap]`,
			"fileAccess":   `[proxy]`,
			"volumes":      `[cache]`,
		},
	}
})

// Kinds are the kinds of documents that a policy file may hold.
var Kinds = desired.Kinds{{APIVersion: desired.APIVersion, Kind: desired.PolicyKind, What: "a document of kind " + desired.PolicyKind, Schema: schema}}

// Values of AllowedPath.Access.
const (
	AccessReadOnly  = "readOnly"
	AccessReadWrite = "readWrite"
)

// AllowedPath is a path of the host, with everything below it, and what may be
// done there.
type AllowedPath struct {
	// An absolute path of the host.
	Path string `json:"path"`
	// `readOnly` wants `readOnly: true` of a volume, and no `overlay: none` of a root.
	Access string `json:"access"`
	// Of `hostPaths` with `readWrite`: `ownership` of a volume may give directories there, with
	// all that is in them, to other owners. It is root of the host who does that. Default: `false`.
	ChangeOwner bool `json:"changeOwner,omitempty"`
}

// RootPolicy says what spec.root may be.
type RootPolicy struct {
	// `root.host` is allowed.
	Host *bool `json:"host,omitempty"`
	// What `root.dir` may name, with everything below. `overlay: none` writes there.
	// Default: `/srv/sandboxctl`, `readWrite`.
	Dirs []AllowedPath `json:"dirs,omitempty"`
	// What `root.bundle` may name, with everything below. Default: `/srv/sandboxctl`,
	// `readWrite`.
	Bundles []AllowedPath `json:"bundles,omitempty"`
	// Where images may come from: a registry (`ghcr.io`), or the beginning of a name in
	// one (`docker.io/library`). `"*"` is any registry that has a domain name and no port:
	// addresses, `localhost` and ports must be named. Default: `"*"`.
	Images []string `json:"images,omitempty"`
	// What `oci:DIR` and `archive:FILE` of `root.image` may name, with everything below.
	// No component may be a symbolic link.
	// Default: `/srv/sandboxctl`, `readWrite`.
	ImagePaths []AllowedPath `json:"imagePaths,omitempty"`
	// Bundles may have hooks that run as root on the host. Those that run in the sandbox
	// (`startContainer`) are always allowed. Default: `false`.
	Hooks bool `json:"hooks,omitempty"`
}

// AnyImage in RootPolicy.Images is any registry with a domain name.
const AnyImage = "*"

// NetworkPolicy says what spec.network may be. mode none always may.
type NetworkPolicy struct {
	// `mode: host` is allowed: everything that the host reaches, and all of its ports,
	// those below 1024 too. Default: `false`.
	Host bool `json:"host,omitempty"`
	// Names for `mode: netns`; `"*"` is any. Default: none.
	Netns []string `json:"netns,omitempty"`
	// Networks of CNI.
	CNI CNIPolicy `json:"cni,omitzero"`
	// `mode: bridge` and Network documents are allowed: sandboxes reach what the host
	// reaches, as far as their `egress` says, and not the host itself. Default: `true`.
	Bridge *bool `json:"bridge,omitempty"`
	// What no sandbox on a network may reach: prefixes of addresses, and `private`, which is all
	// that is no host of the internet, the ports of the host included. A manifest whose
	// `egress` or `dns.servers` may lead there is refused; `sandbox:NAME` is allowed. What runs
	// already goes on as it is. Default: none.
	Deny []string `json:"deny,omitempty"`
	// Where ports may be published.
	Ports PortsPolicy `json:"ports,omitzero"`
	// Prefixes of private addresses that networks without a `subnet` get theirs from: a /20
	// of an IPv4 one, or a /24 if it is smaller than a /16; a /64 of an IPv6 one.
	Pool []string `json:"pool,omitempty"`
	// The most that `network.maxConnections` of a manifest may be, and what a sandbox has
	// without it where that is less. Default: a quarter of the connections that the kernel keeps for all of the host.
	MaxConnections int `json:"maxConnections,omitempty"`
}

// PortsPolicy says which ports of the host may lead to sandboxes.
type PortsPolicy struct {
	// The lowest port that may be published. Default: `1024`.
	Min int `json:"min,omitempty"`
	// Addresses of the host that ports may be published at: addresses, or prefixes of them.
	// `"*"` is any, and all of them at once. Default: `"*"`.
	Addresses []string `json:"addresses,omitempty"`
}

// AnyAddress in PortsPolicy.Addresses is any address of the host.
const AnyAddress = "*"

// DefaultMinPort is the first port that programs of users may have on a usual host.
const DefaultMinPort = 1024

// Default is the policy of a host without a policy file: programs of
// the host and what the administrator put into SharedDir, no network but its
// own loopback, every file operation through a gofer.
func Default() *Policy {
	p := &Policy{APIVersion: desired.APIVersion, Kind: desired.PolicyKind, digest: "built-in"}
	p.fill()
	return p
}

// fill gives the fields that a file left out their defaults.
func (p *Policy) fill() {
	shared := []AllowedPath{{Path: SharedDir, Access: AccessReadWrite}}
	for _, l := range []*[]AllowedPath{&p.HostPaths, &p.Root.Dirs, &p.Root.Bundles, &p.Root.ImagePaths} {
		if *l == nil {
			*l = shared
		}
	}
	if p.Root.Images == nil {
		p.Root.Images = []string{AnyImage}
	}
	p.Network.fill()
	p.Root.Host = cmp.Or(p.Root.Host, new(true))
	p.RootUser, p.NamedVolumes = cmp.Or(p.RootUser, new(true)), cmp.Or(p.NamedVolumes, new(true))
	if p.Platforms == nil {
		p.Platforms = []string{desired.PlatformSystrap}
	}
	if p.FileAccess == nil {
		p.FileAccess = []string{desired.FileAccessProxy}
	}
	p.Snapshots.fill()
	p.fillLimits(hostMemory())
	p.fillPace()
	p.Clients.fill()
}

// Source is the file that the policy is from, or "built-in".
func (p *Policy) Source() string { return cmp.Or(p.from, "built-in") }

// Digest changes whenever the policy does, or what is never shared.
func (p *Policy) Digest() string { return p.digest + p.own }

// Protected are the paths that are never shared with a sandbox, with every link
// that leads to them. A directory may have other paths too, by bind mounts: who
// shares one compares what it is.
func (p *Policy) Protected() []string { return slices.Clone(p.protected) }

// Trusted are the files and directories that no sandbox may write, with every link that leads to
// the files.
func (p *Policy) Trusted() []string { return slices.Concat(p.trusted, p.Network.CNI.dirs()) }

// where tells an author where what is allowed is written down.
func (p *Policy) where() string {
	if p.from == "" {
		return "the built-in host policy (" + DefaultPath + " would change it)"
	}
	return "the host policy " + p.from
}

// Validate returns everything that is wrong with a policy.
func (p *Policy) Validate() []desired.FieldError {
	v := &validator{}
	if p.APIVersion != desired.APIVersion {
		v.Add("apiVersion", "expected %s, got %q", desired.APIVersion, yamldoc.Clip(p.APIVersion))
	}
	if p.Kind != desired.PolicyKind {
		v.Add("kind", "expected %s, got %q", desired.PolicyKind, yamldoc.Clip(p.Kind))
	}
	v.allowedPaths("hostPaths", p.HostPaths)
	v.allowedPaths("root.dirs", p.Root.Dirs)
	v.allowedPaths("root.bundles", p.Root.Bundles)
	v.allowedPaths("root.imagePaths", p.Root.ImagePaths)
	for i, n := range p.Root.Images {
		v.imageName(fmt.Sprintf("root.images[%d]", i), n)
	}
	v.network(&p.Network)
	for i, n := range p.Capabilities {
		if !strings.EqualFold(n, "ALL") {
			v.Capability(fmt.Sprintf("capabilities[%d]", i), n)
		}
	}
	for i, n := range p.Platforms {
		// A policy may allow already what no manifest can ask for yet.
		if !fields.IsPlanned("spec.platform", n) {
			v.OneOf(fmt.Sprintf("platforms[%d]", i), n, desired.PlatformSystrap)
		}
	}
	for i, n := range p.FileAccess {
		v.OneOf(fmt.Sprintf("fileAccess[%d]", i), n, desired.FileAccessProxy, desired.FileAccessDirect)
	}
	v.snapshots(&p.Snapshots)
	v.policyLimits(p)
	if p.MaxSandboxes < 0 {
		v.Add("maxSandboxes", "expected 0 (any number) or more, got %d", p.MaxSandboxes)
	}
	v.pace(p)
	v.clients(&p.Clients)
	return v.Errors()
}

// validator adds the checks of a policy to those of manifests.
type validator struct{ desired.Validator }

// imageName checks a registry, or the beginning of a name in one.
func (v *validator) imageName(field, n string) {
	if n == AnyImage {
		return
	}
	// A name in it is as good as the registry: the grammar is that of references.
	full := n
	if !strings.Contains(n, "/") {
		full += "/x"
	}
	if r, err := imageref.Parse(full); err != nil || !strings.HasPrefix(r.Name()+"/", n+"/") {
		v.Add(field, "expected a registry such as ghcr.io, or the beginning of a name such as docker.io/library, got %q", yamldoc.Clip(n))
	}
}

func (v *validator) allowedPaths(field string, list []AllowedPath) {
	seen := map[string]bool{}
	for i, a := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		v.HostPath(at+".path", a.Path)
		if a.Path == "/" {
			v.Add(at+".path", "the whole host can't be allowed; name the directories that sandboxes need")
		}
		if seen[a.Path] {
			v.Add(at+".path", "%s is given twice; remove one of them", yamldoc.Clip(a.Path))
		}
		seen[a.Path] = true
		v.OneOf(at+".access", a.Access, AccessReadOnly, AccessReadWrite)
		if a.ChangeOwner && (field != VolumePath || a.Access != AccessReadWrite) {
			v.Add(at+".changeOwner", "is for hostPaths with access: readWrite")
		}
		for _, b := range list {
			// It would not be read-only: who has the outer one writes it.
			if a.Access == AccessReadOnly && b.Access == AccessReadWrite && a.Path != b.Path && pathWithin(a.Path, b.Path) {
				v.Add(at+".access", "%s is below %s, which allows readWrite, so that it can be written too; use readWrite for both, or paths of which none is below the other", yamldoc.Clip(a.Path), yamldoc.Clip(b.Path))
			}
		}
	}
}
