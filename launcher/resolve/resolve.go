// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/setup"
)

// FromManifest is the set-up of a manifest on this host as it is now.
func FromManifest(sb *desired.Sandbox, policy *hostpolicy.Policy) (*setup.Setup, error) {
	return setup.FromManifest(sb, policy, readBundleConfig)
}

// FromContainer is the set-up of a container of an OCI client on this host as it is
// now.
func FromContainer(cfg *specs.Spec, bundle string) (*setup.Setup, error) {
	st, err := setup.FromContainer(cfg, bundle, setup.HostView{RealPath: realPath, MapsOf: mapsOf})
	if err != nil {
		return nil, err
	}
	if err := MountPoints(st); err != nil {
		return nil, operation.Permanentf("%w", err)
	}
	if err := hide(st); err != nil {
		return nil, operation.Permanentf("%w", err)
	}
	return st, nil
}

// Container looks at the root of a container of an OCI client, and makes mount points
// in it that nobody could make later.
func Container(cfg *specs.Spec, st *setup.Setup) error {
	if err := checkCommand(cfg, st.App().Root.Path); err != nil {
		return err
	}
	if err := checkCopyUp(st); err != nil {
		return err
	}
	if st.App().Root.ReadOnly {
		if err := makeMountPoints(st); err != nil {
			return err
		}
	}
	return checkNamespaces(cfg)
}
