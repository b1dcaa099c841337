// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/zone"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/idmap"
)

// Setup is everything about a sandbox that is decided before anything is touched:
// what the sentry is told and what the gofer serves.
type Setup struct {
	// Containers are what runs in the sandbox: today one, named actual.AppName. gVisor
	// takes the hostname of the sandbox from its spec.
	Containers []Container `json:"containers"`
	// Policy is what manifests may ask for, nil for an OCI client, who is root. It
	// is that of the moment of a start and no part of what is written down.
	Policy *hostpolicy.Policy `json:"-"`
	// Image is that of the root while the sandbox is being started, and no part of
	// what is written down.
	Image       *Image `json:"-"`
	HostNetwork bool   `json:"hostNetwork,omitempty"`
	// NetNS is the path of the network namespace to join; "" makes a new one.
	NetNS string `json:"netns,omitempty"`
	// Passthrough says that the namespace may have interfaces when the application
	// starts, and not only loopback.
	Passthrough bool `json:"passthrough,omitempty"`
	// RawSockets lets the application keep CAP_NET_RAW, which gVisor takes away
	// from it otherwise.
	RawSockets bool `json:"rawSockets,omitempty"`
	DirectFS   bool `json:"directFS,omitempty"`
	// Maps are the id mappings of the gofer; nil leaves ids as they are.
	Maps   *idmap.Maps   `json:"idMaps,omitempty"`
	Limits cgroup.Limits `json:"limits"`
	// Defaults are the limits of what Limits leave open.
	Defaults cgroup.Limits `json:"defaults"`
	// DefaultDisk is the size of what is on the disk and has none of its own.
	DefaultDisk int64 `json:"defaultDisk,omitempty"`
	// LogSize is the size at which a log file is rotated, 0 for the default.
	LogSize int64 `json:"logSize,omitempty"`
	// CgroupsPath and Resources are those of an OCI client.
	CgroupsPath string                `json:"cgroupsPath,omitempty"`
	Resources   *specs.LinuxResources `json:"resources,omitempty"`
}

// Container is what one container is built of.
type Container struct {
	// Name is that of its actual.Container.
	Name string      `json:"name"`
	Spec *specs.Spec `json:"spec"`
	// Described is what a checkpoint says of the spec: Spec before links of the host
	// were followed and paths hidden, nil if it is the same. A restore compares it
	// with the spec of a sandbox that is about to be built, on another host perhaps.
	Described *specs.Spec `json:"described,omitempty"`
	// Root and Volumes are the served trees; Volumes are in the order of the bind
	// mounts of Spec.Mounts.
	Root    Source   `json:"root"`
	Volumes []Source `json:"volumes,omitempty"`
	// Overlay is where writes to the root go: desired.OverlayMemory, Disk or None.
	Overlay string `json:"overlay"`
	// OverlaySize is how much they may take, 0 if nobody says.
	OverlaySize int64 `json:"overlaySize,omitempty"`
	// CopyUp are the tmpfs mounts that an OCI client wants filled with what the
	// root has there.
	CopyUp []string `json:"copyUp,omitempty"`
	// Errnos are the errors of the profile in Spec.Linux.Seccomp.
	Errnos []uint `json:"errnos,omitempty"`
	// Masked and Readonly are linux.maskedPaths and linux.readonlyPaths.
	Masked   []string `json:"maskedPaths,omitempty"`
	Readonly []string `json:"readonlyPaths,omitempty"`
	// Bundle is that of a manifest, "" if it has none.
	Bundle string `json:"bundle,omitempty"`
	// Hooks are those of a manifest's bundle that run on the host, nil if it has
	// none.
	Hooks *Hooks `json:"hooks,omitempty"`
	// StartHooks run in the container, before its application.
	StartHooks *Hooks `json:"startHooks,omitempty"`
	// Init is actual.Container.Init of a start with this set-up.
	Init string `json:"init,omitempty"`
	// Restores says that the init process is in a checkpoint.
	Restores bool `json:"restores,omitempty"`
	// PrivateEnv says that the application has variables that are not in Spec: only its
	// sentry knows their values.
	PrivateEnv bool `json:"privateEnv,omitempty"`
	// Private is what must not be written down, nil if there is nothing.
	Private *Private `json:"-"`
}

// App is the container named actual.AppName, which every set-up has.
func (st *Setup) App() *Container { return &st.Containers[0] }

// Source is one tree to serve: a host path, or the generated host root.
type Source struct {
	Path string `json:"path,omitempty"` // host path; "" with Host set
	// Kind is how the host policy calls such a path, "" if nobody restricts it.
	Kind string `json:"kind,omitempty"`
	// Field is where it is asked for, in the manifest or in the config.json of its
	// bundle, "" if its author is root.
	Field string `json:"field,omitempty"`
	// Allowed is the path of the host policy that Path is opened below, "" if
	// nobody restricts it.
	Allowed string `json:"allowed,omitempty"`
	// Volume is the name of a named volume, and SubPath the directory in it, "" for all of
	// it. Dir is that directory, open while the sandbox is started. Of a volume in memory
	// SubPath is a file or a directory, and Owner says whom the files belong to.
	Volume   string                    `json:"volume,omitempty"`
	Size     int64                     `json:"-"` // how much it may hold, 0 if nobody says
	Declared *desired.VolumeSpec       `json:"-"` // by a Volume document, nil without one
	SubPath  string                    `json:"subPath,omitempty"`
	Dir      interface{ Fd() uintptr } `json:"-"`
	Owner    *desired.Ownership        `json:"owner,omitempty"` // whom that directory is to belong to
	Host     bool                      `json:"host,omitempty"`  // the generated view of the host
	// Image says that it is an image: the sentry has the file of it, and nobody
	// serves it.
	Image    *ImageSource `json:"image,omitempty"`
	ReadOnly bool         `json:"readOnly,omitempty"`
	// Options are the other ones of its mount.
	Options MountOptions `json:"options"`
	// Empty says that it is an empty file, in the place of a masked one. It is
	// nowhere on the host.
	Empty bool `json:"empty,omitempty"`
	// Names says that it is the directory with the names that the sandbox sees on its
	// networks. Dir is that directory.
	Names bool `json:"names,omitempty"`
	// InMemory is the name of the manifest's volume, if it is a directory with files in
	// memory. Files are what is in it: they are not written down.
	InMemory string       `json:"inMemory,omitempty"`
	Files    []MemoryFile `json:"-"`
	// Disk says that it is an empty directory on the disk of the state directory: the
	// sentry has a file for what is in it, and nobody serves it.
	Disk *DiskSource `json:"disk,omitempty"`
	// Hostname and Resolver, the file of the host that becomes resolv.conf, shape
	// the generated /etc of a host root, and what is laid over that of an image; the user and the mappings its home
	// directory.
	Hostname string `json:"hostname,omitempty"`
	Resolver string `json:"resolver,omitempty"`
	// HostsAt is where /etc/hosts of a sandbox on networks leads, which changes while it
	// runs, and ResolvConf its resolv.conf, in the place of those that Hostname and Resolver
	// make.
	HostsAt    string      `json:"hostsAt,omitempty"`
	ResolvConf string      `json:"resolvConf,omitempty"`
	User       *User       `json:"user,omitempty"`
	Maps       *idmap.Maps `json:"idMaps,omitempty"`
	// Zone is the time zone of a root, nil to leave what it has.
	Zone *zone.Zone `json:"-"`
}

// User is who an application is, in numbers.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

// numbers are the ids of a user who has no name, nil if there is none.
func numbers(u *desired.User) *User {
	if u == nil || u.UID == nil || u.GID == nil {
		return nil
	}
	return &User{UID: *u.UID, GID: *u.GID, Groups: u.Groups}
}

// MemoryFile is a file of a volume in memory.
type MemoryFile struct {
	Name string // its path in the volume
	Mode uint32
	Data []byte
}

// Limit is the limit in force of those that were asked for and the defaults.
func Limit(asked, def int64) int64 {
	if asked > 0 {
		return asked
	}
	return def
}

// allow makes a source of a host path, which is opened below the path of the
// policy that allows it.
func (st *Setup) allow(kind, path string, readOnly bool) (Source, error) {
	s := Source{Path: path, ReadOnly: readOnly}
	if st.Policy == nil {
		return s, nil
	}
	s.Kind = kind
	var err error
	if s.Allowed, err = st.Policy.AllowedRoot(kind, path, !readOnly); err != nil {
		return s, operation.Permanentf("%w", err)
	}
	return s, nil
}

// AddBind serves a tree at dest. The sentry is given a name that says nothing of
// the host: it gets the tree over lisafs and has no use for a path.
func (st *Setup) AddBind(dest string, src Source) {
	st.App().Spec.Mounts = append(st.App().Spec.Mounts, specs.Mount{
		Destination: dest, Type: "bind",
		Source:  fmt.Sprintf("/volume/%d", len(st.App().Volumes)),
		Options: src.bindOptions(),
	})
	st.App().Volumes = append(st.App().Volumes, src)
}

func (s *Source) bindOptions() []string {
	o, mode := s.Options, "rw"
	if s.ReadOnly {
		mode = "ro"
	}
	o.ReadOnly = false
	return append([]string{"rbind", mode}, o.forSentry()...)
}

// CopySpec is a copy of the spec that changes of mounts and of the root don't reach.
func (st *Setup) CopySpec() *specs.Spec {
	spec, root := *st.App().Spec, *st.App().Spec.Root
	spec.Root, spec.Mounts = &root, slices.Clone(st.App().Spec.Mounts)
	return &spec
}

// HostUserns says whether the sentry must stay in the host's user namespace:
// it needs capabilities over the host's network or files.
func (st *Setup) HostUserns() bool { return st.HostNetwork || st.DirectFS }

// Network is gVisor's name of the kind of network.
func (st *Setup) Network() string {
	switch {
	case st.HostNetwork:
		return "host"
	case st.Passthrough:
		return "sandbox"
	}
	return "none"
}

// Sources are the served trees, root first.
func (st *Setup) Sources() []Source { return append([]Source{st.App().Root}, st.App().Volumes...) }
