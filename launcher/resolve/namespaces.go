// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/launcher/netns"
)

// realPath resolves a path of a bundle, links included.
func realPath(bundle, p string) (string, error) {
	if !filepath.IsAbs(p) {
		p = filepath.Join(bundle, p)
	}
	return filepath.EvalSymlinks(p)
}

var namespaceKinds = map[specs.LinuxNamespaceType]int{
	specs.PIDNamespace: unix.CLONE_NEWPID, specs.NetworkNamespace: unix.CLONE_NEWNET, specs.MountNamespace: unix.CLONE_NEWNS,
	specs.IPCNamespace: unix.CLONE_NEWIPC, specs.UTSNamespace: unix.CLONE_NEWUTS, specs.UserNamespace: unix.CLONE_NEWUSER,
	specs.CgroupNamespace: unix.CLONE_NEWCGROUP, specs.TimeNamespace: unix.CLONE_NEWTIME,
}

// checkNamespaces refuses namespaces that are not what they are said to be, also
// those that are not joined.
func checkNamespaces(c *specs.Spec) error {
	if c.Linux == nil {
		return nil
	}
	for i, ns := range c.Linux.Namespaces {
		want, known := namespaceKinds[ns.Type]
		if !known {
			return operation.Permanentf("linux.namespaces[%d].type: %q is not a kind of namespace", i, ns.Type)
		}
		if ns.Path == "" {
			continue
		}
		if !filepath.IsAbs(ns.Path) {
			return operation.Permanentf("linux.namespaces[%d].path: expected an absolute path, got %q", i, ns.Path)
		}
		kind, err := netns.Kind(ns.Path)
		if err != nil {
			return operation.Permanentf("linux.namespaces[%d].path: %w", i, err)
		}
		if kind != want {
			return operation.Permanentf("linux.namespaces[%d].path: %s is not a %s namespace", i, ns.Path, ns.Type)
		}
	}
	return nil
}
