// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/specfield"
)

// FromContainer decides the set-up of a container from the config.json of its
// bundle. Its author is root, who could do everything that is asked for here
// without this program: paths may lead through links and namespaces may be the
// host's, unlike those of a manifest.
func FromContainer(cfg *specs.Spec, bundle string, host HostView) (*Setup, error) {
	st, err := containerSetup(cfg, bundle, host)
	if err != nil {
		return nil, operation.Permanentf("read %s/config.json: %w", bundle, err)
	}
	return st, nil
}

func containerSetup(cfg *specs.Spec, bundle string, host HostView) (*Setup, error) {
	if err := checkContainer(cfg); err != nil {
		return nil, err
	}
	root, err := host.RealPath(bundle, cfg.Root.Path)
	if err != nil {
		return nil, fmt.Errorf("root.path: %w", err)
	}
	st := &Setup{Containers: []Container{{
		Name: actual.AppName, Root: Source{Path: root, ReadOnly: cfg.Root.Readonly}, Overlay: desired.OverlayNone,
	}}}
	if err := st.addConfig(cfg, bundle); err != nil {
		return nil, err
	}
	st.HostNetwork, st.RawSockets = true, RawSockets(cfg)
	if l := cfg.Linux; l != nil {
		spec := st.App().Spec.Linux
		spec.Devices, spec.MaskedPaths, spec.ReadonlyPaths = l.Devices, l.MaskedPaths, l.ReadonlyPaths
		st.CgroupsPath, st.Resources = l.CgroupsPath, l.Resources
		if err := st.joinNamespaces(l, host); err != nil {
			return nil, err
		}
	}
	err = st.addMounts(cfg.Mounts, true, func(_ string, m *specs.Mount, o MountOptions) (Source, error) {
		path, err := host.RealPath(bundle, m.Source)
		return Source{Path: path, ReadOnly: o.ReadOnly}, err
	})
	return st, err
}

// joinNamespaces takes those that are not new ones: of users and of the network.
func (st *Setup) joinNamespaces(l *specs.Linux, host HostView) (err error) {
	userns, usernsPath := false, ""
	for _, ns := range l.Namespaces {
		if ns.Type == specs.UserNamespace {
			userns, usernsPath = true, ns.Path
		}
		if ns.Type == specs.NetworkNamespace {
			// A hook may put interfaces into a namespace that is new.
			st.HostNetwork, st.NetNS, st.Passthrough = false, ns.Path, true
		}
	}
	st.Maps, err = idmap.OfContainer(l, usernsPath, userns, host.MapsOf)
	return err
}

// HostView is what the set-up of a container needs to know of the host.
type HostView struct {
	// RealPath resolves a path of a bundle, links included.
	RealPath func(bundle, path string) (string, error)
	// MapsOf are the mappings of the user namespace at a path.
	MapsOf func(path string) (*idmap.Maps, error)
}

// ociVersions are the versions of the specification that config.json may be of.
var ociVersions = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^1\.[0-9]+\.[0-9]+([-+].*)?$`) })

// checkContainer refuses what can't be honoured and would change what the
// container is. What gVisor does not need or have is passed over, as its own
// runtime does: profiles of the host's security modules, and joining namespaces
// whose contents are the sentry's own.
func checkContainer(c *specs.Spec) error {
	if !ociVersions().MatchString(c.Version) {
		return fmt.Errorf("ociVersion: expected 1.x.y, got %q", c.Version)
	}
	if err := checkConfig(c, specfield.Runtime); err != nil {
		return err
	}
	if l := c.Linux; l != nil {
		seen := map[specs.LinuxNamespaceType]bool{}
		for i, ns := range l.Namespaces {
			if seen[ns.Type] {
				return fmt.Errorf("linux.namespaces[%d]: %s is given twice", i, ns.Type)
			}
			seen[ns.Type] = true
		}
		if p := strings.TrimPrefix(l.RootfsPropagation, "r"); !slices.Contains([]string{"", "shared", "slave", "private", "unbindable"}, p) {
			return fmt.Errorf("linux.rootfsPropagation: expected shared, slave, private or unbindable, got %q", l.RootfsPropagation)
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
