// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/idmap"
)

// DefaultPath is where programs are looked for if nothing else is said.
const DefaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// FromManifest decides the set-up of a valid, defaulted manifest that the policy
// allows. It touches nothing; img is the image of its root, if that is one, and
// readBundle returns the config.json of a bundle, which the policy judges too. A nil
// policy allows everything; only callers that compare set-ups pass nil.
func FromManifest(sb *desired.Sandbox, policy *hostpolicy.Policy, img *Image, readBundle func(*Source) (*specs.Spec, error)) (*Setup, error) {
	s := &sb.Spec
	st := &Setup{
		Policy:      policy,
		Containers:  []Container{{Name: actual.AppName, Overlay: s.Overlay, OverlaySize: int64(s.OverlaySize)}},
		HostNetwork: s.Network.Mode == networks.Host,
		DirectFS:    s.FileAccess == desired.FileAccessDirect,
		Maps:        idmap.OfManifest(s.IDMappings),
		Limits:      limitsOf(s.Resources),
	}
	if policy != nil {
		st.Defaults, st.LogSize, st.DefaultDisk = limitsOf(policy.DefaultResources), int64(policy.LogSize), int64(policy.DefaultDiskSize)
	}
	resolver := ""
	switch s.Network.Mode {
	case networks.Host:
		resolver = "/etc/resolv.conf"
	case networks.Bridge, networks.CNI:
		// The namespace is the sandbox's own, with links that are made for it.
		st.Passthrough = true
	case networks.Netns:
		st.NetNS, st.Passthrough = desired.NetnsPath(s.Network.Netns), true
		// As for the programs that `ip netns exec` runs in it.
		resolver = "/etc/netns/" + s.Network.Netns + "/resolv.conf"
	}
	switch {
	case s.Root.Host != nil:
		st.App().Root = Source{Host: true, ReadOnly: true, Hostname: s.Hostname, Resolver: resolver, User: numbers(s.User), Maps: st.Maps}
	case s.Root.Dir != "":
		var err error
		if st.App().Root, err = st.allow(hostpolicy.DirPath, s.Root.Dir, s.Overlay != desired.OverlayNone); err != nil {
			return nil, fmt.Errorf("spec.root.dir: %w", err)
		}
		st.App().Root.Field = "spec.root.dir"
	case s.Root.Bundle != "":
		if err := st.fromBundle(s.Root.Bundle, readBundle); err != nil {
			return nil, err
		}
	case s.Root.Image != nil:
		if err := st.fromImage(sb, img); err != nil {
			return nil, err
		}
		st.App().Root.Hostname, st.App().Root.Resolver = s.Hostname, resolver
	default:
		return nil, operation.Permanentf("build spec: no root")
	}
	if st.App().Spec == nil {
		spec, err := st.processSpec(sb)
		if err != nil {
			return nil, err
		}
		st.App().Spec = spec
	}
	if err := st.addVolumes(s.Volumes); err != nil {
		return nil, err
	}
	if s.Network.Mode == networks.Bridge {
		st.showNames()
	}
	st.chooseInit(s.Init)
	return st, nil
}

func limitsOf(r desired.Resources) cgroup.Limits {
	return cgroup.Limits{CPU: int64(r.CPU), Memory: int64(r.Memory), PIDs: r.PIDs}
}

// processSpec is the OCI spec of a manifest whose process fields are its own.
func (st *Setup) processSpec(sb *desired.Sandbox) (*specs.Spec, error) {
	s := &sb.Spec
	args, env, err := st.expand(sb, nil)
	if err != nil {
		return nil, operation.Permanentf("%w", err)
	}
	p := &specs.Process{
		Args:         args,
		Cwd:          s.WorkingDir,
		Env:          env,
		Terminal:     s.Terminal,
		Capabilities: capabilities(s.Capabilities),
		// The guest's own no_new_privs stays off: setuid programs inside a
		// sandbox change nothing outside of it.
	}
	if u := numbers(s.User); u != nil {
		setUser(p, u)
	}
	for _, r := range s.Rlimits {
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: rlimitName(r.Type), Soft: r.Soft, Hard: r.Hard})
	}
	return &specs.Spec{
		Version:  specs.Version,
		Process:  p,
		Root:     &specs.Root{Path: "/"},
		Hostname: s.Hostname,
		Mounts:   DefaultMounts(),
		Linux:    &specs.Linux{},
	}, nil
}

// setUser has a process run as a user.
func setUser(p *specs.Process, u *User) {
	p.User = specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups}
	if u.UID != 0 {
		// Only root starts with capabilities in effect, as after a setuid
		// from root; the bounding set is the same.
		p.Capabilities = &specs.LinuxCapabilities{Bounding: p.Capabilities.Bounding}
	}
}

// DefaultMounts are the guest's virtual filesystems; gVisor implements all of
// them itself.
func DefaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "mode=1777"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "ro"}},
	}
}

// addVolumes appends the manifest's volumes to the spec's mounts, and the
// host's trees to what is served.
func (st *Setup) addVolumes(volumes []desired.Volume) error {
	for i, v := range volumes {
		switch {
		case v.Tmpfs != nil:
			opts := []string{"nosuid", "mode=1777"}
			if v.Tmpfs.Size > 0 {
				opts = append(opts, sizeOption(int64(v.Tmpfs.Size)))
			}
			if v.ReadOnly {
				opts = append(opts, "ro")
			}
			o, err := parseMountOptions(&specs.Mount{Type: "tmpfs", Options: append(opts, v.Options...)}, false)
			if err != nil {
				return operation.Permanentf("spec.volumes[%d].%w", i, err)
			}
			st.App().Spec.Mounts = append(st.App().Spec.Mounts, specs.Mount{Destination: v.MountPath, Type: "tmpfs", Source: "tmpfs", Options: o.forSentry()})
		case v.EmptyDir != nil:
			if err := st.addEmptyDir(&v); err != nil {
				return operation.Permanentf("spec.volumes[%d].%w", i, err)
			}
		case v.InMemory() != nil:
			o, err := parseMountOptions(&specs.Mount{Type: "bind", Options: v.Options}, false)
			if err != nil {
				return operation.Permanentf("spec.volumes[%d].%w", i, err)
			}
			if own := v.Ownership; own != nil && !st.Maps.Maps(ownedBy(own.UID), ownedBy(own.GID)) {
				return operation.Permanentf("spec.volumes[%d].ownership: uid or gid is nobody on the host; map it with idMappings", i)
			}
			st.AddBind(v.MountPath, Source{InMemory: v.Name, SubPath: v.SubPath, Owner: v.Ownership, ReadOnly: true, Options: o})
		case v.HostPath != "" || v.Volume != nil:
			field := fmt.Sprintf("spec.volumes[%d].%s", i, v.SourceField())
			src, err := st.onDisk(&v)
			if err != nil {
				return fmt.Errorf("%s: %w", field, err)
			}
			src.Field = field
			if src.Options, err = parseMountOptions(&specs.Mount{Type: "bind", Options: v.Options}, false); err != nil {
				return operation.Permanentf("spec.volumes[%d].%w", i, err)
			}
			if src.Options.NoDev && st.DirectFS {
				return operation.Permanentf("spec.volumes[%d].options: with fileAccess direct nobody hides device nodes; use proxy, or remove nodev", i)
			}
			st.AddBind(v.MountPath, src)
		}
	}
	return nil
}

// ownedBy is an id that a manifest may leave out.
func ownedBy(id *uint32) uint32 {
	if id == nil {
		return 0
	}
	return *id
}

// onDisk is the source of a volume that is on the host.
func (st *Setup) onDisk(v *desired.Volume) (Source, error) {
	if v.Volume != nil {
		return Source{Volume: v.Volume.Name, Size: int64(v.Volume.Size), SubPath: v.SubPath, Owner: v.Ownership, ReadOnly: v.ReadOnly}, nil
	}
	src, err := st.allow(hostpolicy.VolumePath, v.Source(), v.ReadOnly)
	src.Owner = v.Ownership
	return src, err
}
