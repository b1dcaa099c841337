// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/cgroup"
)

// setup is everything about a sandbox that is decided before anything is
// touched: what the sentry is told and what the gofer serves.
type setup struct {
	spec *specs.Spec
	// policy is what manifests may ask for, nil for an OCI client, who is root.
	policy *hostpolicy.Policy
	// root and volumes are the served trees; volumes are in the order of the
	// bind mounts of spec.Mounts.
	root    source
	volumes []source
	// overlay is where writes to the root go: desired.OverlayMemory or None.
	overlay     string
	hostNetwork bool
	// netns is the path of the network namespace to join; "" makes a new one.
	netns string
	// lends says that the namespace may have interfaces when the application
	// starts, and not only loopback.
	lends bool
	// rawSockets lets the application keep CAP_NET_RAW, which gVisor takes away
	// from it otherwise.
	rawSockets bool
	directFS   bool
	// maps are the id mappings of the gofer; nil leaves ids as they are.
	maps   *idMaps
	limits cgroup.Limits
	// defaults are the limits of what limits leave open.
	defaults cgroup.Limits
	// logSize is the size at which a log file is rotated, 0 for the default.
	logSize int64
	// copyUp are the tmpfs mounts that an OCI client wants filled with what the
	// root has there.
	copyUp []string
	// cgroupsPath and resources are those of a container.
	cgroupsPath string
	resources   *specs.LinuxResources
	// errnos are the errors of the profile in spec.Linux.Seccomp.
	errnos []uint
	// masked and readonly are linux.maskedPaths, without those in others, and
	// linux.readonlyPaths.
	masked, readonly []string
	// bundle is that of a manifest, "" if it has none.
	bundle string
	// hooks are those of a manifest's bundle that run on the host, nil if it has
	// none.
	hooks *bundleHooks
	// startHooks run in the sandbox, before its application.
	startHooks *bundleHooks
	// init is Record.Init of a start with this set-up.
	init string
	// restores says that the init process is in a checkpoint.
	restores bool
}

// source is one tree to serve: a host path, or the generated host root.
type source struct {
	path string // host path; "" with host set
	// field is where it is asked for, in the manifest or in the config.json of its
	// bundle, "" if its author is root.
	field string
	// allowed is the path of the host policy that path is opened below, "" if
	// nobody restricts it.
	allowed  string
	host     bool // the generated view of the host
	readOnly bool
	// options are the other ones of its mount.
	options mountOptions
	// empty says that it is an empty file, in the place of a masked one. It is
	// nowhere on the host.
	empty bool
	// hostname and resolver, the file of the host that becomes resolv.conf,
	// shape the generated /etc of a host root; the user and the mappings its
	// home directory.
	hostname, resolver string
	user               *desired.User
	maps               *idMaps
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// fromManifest decides the set-up of a valid, defaulted manifest that the policy
// allows. It reads nothing but, for root.bundle, the bundle's config.json, which
// it judges by the policy too. Without a policy, which is for who only compares,
// everything is allowed.
func fromManifest(sb *desired.Sandbox, policy *hostpolicy.Policy) (*setup, error) {
	s := &sb.Spec
	st := &setup{
		policy:      policy,
		overlay:     s.Overlay,
		hostNetwork: s.Network.Mode == desired.NetworkHost,
		directFS:    s.FileAccess == desired.FileAccessDirect,
		maps:        manifestMaps(s.IDMappings),
		limits:      limitsOf(s.Resources),
	}
	if policy != nil {
		st.defaults, st.logSize = limitsOf(policy.DefaultResources), int64(policy.LogSize)
	}
	resolver := ""
	switch s.Network.Mode {
	case desired.NetworkHost:
		resolver = "/etc/resolv.conf"
	case desired.NetworkNetns:
		st.netns, st.lends = desired.NetnsPath(s.Network.Netns), true
		// As for the programs that `ip netns exec` runs in it.
		resolver = "/etc/netns/" + s.Network.Netns + "/resolv.conf"
	}
	switch {
	case s.Root.Host != nil:
		st.root = source{host: true, readOnly: true, hostname: s.Hostname, resolver: resolver, user: s.User, maps: st.maps}
	case s.Root.Dir != "":
		var err error
		if st.root, err = st.allow(hostpolicy.DirPath, s.Root.Dir, s.Overlay != desired.OverlayNone); err != nil {
			return nil, fmt.Errorf("spec.root.dir: %w", err)
		}
		st.root.field = "spec.root.dir"
	case s.Root.Bundle != "":
		if err := st.fromBundle(s.Root.Bundle); err != nil {
			return nil, err
		}
	default:
		return nil, terminalf("build spec: no root")
	}
	if st.spec == nil {
		st.spec = processSpec(sb)
	}
	if err := st.addVolumes(s.Volumes); err != nil {
		return nil, err
	}
	st.chooseInit(s.Init)
	return st, nil
}

func limitsOf(r desired.Resources) cgroup.Limits {
	return cgroup.Limits{CPU: int64(r.CPU), Memory: int64(r.Memory), PIDs: r.PIDs}
}

// limit is the limit in force of those that were asked for and the defaults.
func limit(asked, def int64) int64 {
	if asked > 0 {
		return asked
	}
	return def
}

// allow makes a source of a host path, which is opened below the path of the
// policy that allows it.
func (st *setup) allow(kind, path string, readOnly bool) (source, error) {
	s := source{path: path, readOnly: readOnly}
	if st.policy == nil {
		return s, nil
	}
	var err error
	if s.allowed, err = st.policy.AllowedRoot(kind, path, !readOnly); err != nil {
		return s, &terminalError{err}
	}
	return s, nil
}

// processSpec is the OCI spec of a manifest whose process fields are its own.
func processSpec(sb *desired.Sandbox) *specs.Spec {
	s := &sb.Spec
	args, env := expandProcess(s)
	p := &specs.Process{
		Args:         args,
		Cwd:          s.WorkingDir,
		Env:          env,
		Terminal:     s.Terminal,
		Capabilities: capabilities(s.Capabilities),
		// The guest's own no_new_privs stays off: setuid programs inside a
		// sandbox change nothing outside of it.
	}
	if s.User != nil {
		p.User = specs.User{UID: s.User.UID, GID: s.User.GID, AdditionalGids: s.User.Groups}
		if s.User.UID != 0 {
			// Only root starts with capabilities in effect, as after a setuid
			// from root; the bounding set is the same.
			p.Capabilities = &specs.LinuxCapabilities{Bounding: p.Capabilities.Bounding}
		}
	}
	for _, r := range s.Rlimits {
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: rlimitName(r.Type), Soft: r.Soft, Hard: r.Hard})
	}
	return &specs.Spec{
		Version:  specs.Version,
		Process:  p,
		Root:     &specs.Root{Path: "/"},
		Hostname: s.Hostname,
		Mounts:   defaultMounts(),
		Linux:    &specs.Linux{},
	}
}

// defaultMounts are the guest's virtual filesystems; gVisor implements all of
// them itself.
func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "mode=1777"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "ro"}},
	}
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

func rlimitName(n string) string {
	return "RLIMIT_" + strings.TrimPrefix(strings.ToUpper(n), "RLIMIT_")
}

// addVolumes appends the manifest's volumes to the spec's mounts, and the
// host's trees to what is served.
func (st *setup) addVolumes(volumes []desired.Volume) error {
	for i, v := range volumes {
		switch {
		case v.Tmpfs != nil:
			opts := []string{"nosuid", "mode=1777"}
			if v.Tmpfs.Size > 0 {
				opts = append(opts, fmt.Sprintf("size=%d", int64(v.Tmpfs.Size)))
			}
			if v.ReadOnly {
				opts = append(opts, "ro")
			}
			o, err := parseMountOptions(&specs.Mount{Type: "tmpfs", Options: append(opts, v.Options...)}, false)
			if err != nil {
				return terminalf("spec.volumes[%d].%w", i, err)
			}
			st.spec.Mounts = append(st.spec.Mounts, specs.Mount{Destination: v.MountPath, Type: "tmpfs", Source: "tmpfs", Options: o.forSentry()})
		case v.HostPath != "":
			field := fmt.Sprintf("spec.volumes[%d].hostPath", i)
			src, err := st.allow(hostpolicy.VolumePath, v.HostPath, v.ReadOnly)
			if err != nil {
				return fmt.Errorf("%s: %w", field, err)
			}
			src.field = field
			if src.options, err = parseMountOptions(&specs.Mount{Type: "bind", Options: v.Options}, false); err != nil {
				return terminalf("spec.volumes[%d].%w", i, err)
			}
			if src.options.noDev && st.directFS {
				return terminalf("spec.volumes[%d].options: with fileAccess direct nobody hides device nodes; use proxy, or remove nodev", i)
			}
			st.addBind(v.MountPath, src)
		}
	}
	return nil
}

// addBind serves a tree at dest. The sentry is given a name that says nothing of
// the host: it gets the tree over lisafs and has no use for a path.
func (st *setup) addBind(dest string, src source) {
	st.spec.Mounts = append(st.spec.Mounts, specs.Mount{
		Destination: dest, Type: "bind",
		Source:  fmt.Sprintf("/volume/%d", len(st.volumes)),
		Options: src.bindOptions(),
	})
	st.volumes = append(st.volumes, src)
}

func (s *source) bindOptions() []string {
	o, mode := s.options, "rw"
	if s.readOnly {
		mode = "ro"
	}
	o.readOnly = false
	return append([]string{"rbind", mode}, o.forSentry()...)
}

// hostUserns says whether the sentry must stay in the host's user namespace:
// it needs capabilities over the host's network or files.
func (st *setup) hostUserns() bool { return st.hostNetwork || st.directFS }

// network is gVisor's name of the kind of network.
func (st *setup) network() string {
	switch {
	case st.hostNetwork:
		return "host"
	case st.lends:
		return "sandbox"
	}
	return "none"
}

// sources are the served trees, root first.
func (st *setup) sources() []source { return append([]source{st.root}, st.volumes...) }

// mountConfs is gVisor's --gofer-mount-confs: one LOWER:UPPER a served tree.
func (st *setup) mountConfs() string {
	confs := []string{"lisafs:none"}
	if st.overlay == desired.OverlayMemory {
		confs[0] = "lisafs:memory"
	}
	for range st.volumes {
		confs = append(confs, "lisafs:none")
	}
	return strings.Join(confs, ",")
}
