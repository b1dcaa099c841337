// SPDX-License-Identifier: Apache-2.0

package setup

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// container is a config.json that is in order, changed.
func container(change func(*specs.Spec)) *specs.Spec {
	c := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "/"},
		Process: &specs.Process{Args: []string{"a"}, Cwd: "/"},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}}},
	}
	if change != nil {
		change(c)
	}
	return c
}

// fromContainer is the set-up of a container on a host without links.
func fromContainer(c *specs.Spec) (*Setup, error) {
	return FromContainer(c, "/", HostView{RealPath: func(_, path string) (string, error) { return path, nil }})
}
