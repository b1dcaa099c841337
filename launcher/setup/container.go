// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/specfield"
)

// FromContainer decides the set-up of a container from the config.json of its
// bundle. Its author is root, who could do everything that is asked for here
// without this program: paths may lead through links and namespaces may be the
// host's, unlike those of a manifest.
func FromContainer(cfg *specs.Spec, bundle string, host HostView) (*Setup, error) {
	if err := checkContainer(cfg); err != nil {
		return nil, operation.Permanentf("read %s/config.json: %w", bundle, err)
	}
	root, err := host.RealPath(bundle, cfg.Root.Path)
	if err != nil {
		return nil, operation.Permanentf("resolve root.path: %w", err)
	}
	st := &Setup{Containers: []Container{{
		Name: actual.AppName, Root: Source{Path: root, ReadOnly: cfg.Root.Readonly}, Overlay: desired.OverlayNone,
	}}}
	p := *cfg.Process
	// They are the host's, and the sentry has none.
	p.ApparmorProfile, p.SelinuxLabel, p.OOMScoreAdj = "", "", nil
	p.Capabilities = settable(p.Capabilities)
	st.App().Spec = &specs.Spec{
		Version:  specs.Version,
		Process:  &p,
		Root:     &specs.Root{Path: "/", Readonly: cfg.Root.Readonly},
		Hostname: cfg.Hostname, Domainname: cfg.Domainname,
		Linux: &specs.Linux{},
	}
	if err := st.addStartHooks(cfg, bundle); err != nil {
		return nil, operation.Permanentf("read %s/config.json: %w", bundle, err)
	}
	st.HostNetwork = true
	if cfg.Linux != nil {
		st.App().Spec.Linux.Devices, st.App().Spec.Linux.Sysctl = cfg.Linux.Devices, cfg.Linux.Sysctl
		if err := st.useSeccomp(cfg.Linux.Seccomp); err != nil {
			return nil, operation.Permanentf("read %s/config.json: %w", bundle, err)
		}
		st.App().Spec.Linux.MaskedPaths, st.App().Spec.Linux.ReadonlyPaths = cfg.Linux.MaskedPaths, cfg.Linux.ReadonlyPaths
		st.bundleLimits(cfg.Linux.Resources)
		st.CgroupsPath, st.Resources = cfg.Linux.CgroupsPath, cfg.Linux.Resources
		st.App().Masked, st.App().Readonly = Outermost(cfg.Linux.MaskedPaths), cfg.Linux.ReadonlyPaths
		userns, usernsPath := false, ""
		for _, ns := range cfg.Linux.Namespaces {
			if ns.Type == specs.UserNamespace {
				userns, usernsPath = true, ns.Path
			}
			if ns.Type == specs.NetworkNamespace {
				// A hook may put interfaces into a namespace that is new.
				st.HostNetwork, st.NetNS, st.Passthrough = false, ns.Path, true
			}
		}
		if st.Maps, err = ContainerMaps(cfg.Linux, usernsPath, userns, host.MapsOf); err != nil {
			return nil, operation.Permanentf("read %s/config.json: %w", bundle, err)
		}
	}
	st.RawSockets = RawSockets(cfg)
	if err := st.addMounts(cfg.Mounts, bundle, host); err != nil {
		return nil, err
	}
	return st, nil
}

// addMounts adds the mounts of a container, without those that a masked path hides.
func (st *Setup) addMounts(mounts []specs.Mount, bundle string, host HostView) error {
	for i, m := range mounts {
		if IsMasked(m.Destination, st.App().Masked) {
			continue
		}
		o, err := parseMountOptions(&m, true)
		if err != nil {
			return operation.Permanentf("read %s/config.json: mounts[%d].%w", bundle, i, err)
		}
		if !IsBind(m) {
			if o.CopyUp {
				st.App().CopyUp = append(st.App().CopyUp, m.Destination)
			}
			st.App().Spec.Mounts = append(st.App().Spec.Mounts, o.own(m))
			continue
		}
		src, err := host.RealPath(bundle, m.Source)
		if err != nil {
			return operation.Permanentf("resolve mounts[%d].source: %w", i, err)
		}
		st.AddBind(m.Destination, Source{Path: src, ReadOnly: o.ReadOnly, Options: o})
	}
	return nil
}

// HostView is what the set-up of a container needs to know of the host.
type HostView struct {
	// realPath resolves a path of a bundle, links included.
	RealPath func(bundle, path string) (string, error)
	// mapsOf are the mappings of the user namespace at a path.
	MapsOf func(path string) (*IDMaps, error)
}

// ociVersions are the versions of the specification that config.json may be of.
var ociVersions = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^1\.[0-9]+\.[0-9]+([-+].*)?$`) })

// checkContainer refuses what can't be honoured and would change what the
// container is. What gVisor does not need or have is passed over, as its own
// runtime does: profiles of the host's security modules, and joining namespaces
// whose contents are the sentry's own.
func checkContainer(c *specs.Spec) error {
	switch {
	case !ociVersions().MatchString(c.Version):
		return fmt.Errorf("ociVersion: expected 1.x.y, got %q", c.Version)
	case c.Root == nil || c.Root.Path == "":
		return fmt.Errorf("root.path: expected a path")
	case len(c.Mounts) > maxMounts:
		return fmt.Errorf("mounts: expected at most %d, got %d", maxMounts, len(c.Mounts))
	}
	if err := specfield.Check(c, specfield.Runtime); err != nil {
		return err
	}
	if err := checkProcess(c.Process); err != nil {
		return err
	}
	for i, m := range c.Mounts {
		switch {
		case !filepath.IsAbs(m.Destination) || strings.Contains(m.Destination, ".."):
			return fmt.Errorf("mounts[%d].destination: expected an absolute path without \"..\", got %q", i, m.Destination)
		case IsBind(m) && m.Source == "":
			return fmt.Errorf("mounts[%d].source: expected a path", i)
		case !IsBind(m) && !slices.Contains(filesystems, m.Type):
			return fmt.Errorf("mounts[%d].type: expected bind or one of %s, got %q", i, strings.Join(filesystems, ", "), m.Type)
		}
	}
	if err := checkCapabilities(c.Process.Capabilities); err != nil {
		return err
	}
	if l := c.Linux; l != nil {
		seen := map[specs.LinuxNamespaceType]bool{}
		for i, ns := range l.Namespaces {
			if seen[ns.Type] {
				return fmt.Errorf("linux.namespaces[%d]: %s is there twice", i, ns.Type)
			}
			seen[ns.Type] = true
		}
		if p := strings.TrimPrefix(l.RootfsPropagation, "r"); !slices.Contains([]string{"", "shared", "slave", "private", "unbindable"}, p) {
			return fmt.Errorf("linux.rootfsPropagation: expected shared, slave, private or unbindable, got %q", l.RootfsPropagation)
		}
		if err := errors.Join(checkHidden(l), cgroup.CheckPIDs(l.Resources)); err != nil {
			return err
		}
		for i, d := range l.Devices {
			if err := checkDevice(&d); err != nil {
				return fmt.Errorf("linux.devices[%d].%w", i, err)
			}
		}
	}
	return nil
}

// checkDevice refuses a device that the sandbox can't have. It gets a node that
// leads to gVisor's own device of that number, if there is one: those that
// gVisor would pass on to the host's hardware are not for this program.
func checkDevice(d *specs.LinuxDevice) error {
	switch {
	case !strings.HasPrefix(d.Path, "/dev/") || strings.Contains(d.Path, ".."):
		return fmt.Errorf("path: expected a path below /dev, got %q", d.Path)
	case strings.HasPrefix(d.Path, "/dev/vfio") || strings.HasPrefix(d.Path, "/dev/accel"):
		return fmt.Errorf("path: %s is a device of the host, which no sandbox gets", d.Path)
	case !slices.Contains([]string{"c", "u", "b", "p"}, d.Type):
		return fmt.Errorf("type: expected c, u, b or p, got %q", d.Type)
	}
	return nil
}
