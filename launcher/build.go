// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/setup"
)

// fromManifest is the set-up of a manifest on this host as it is now.
func fromManifest(sb *desired.Sandbox, policy *hostpolicy.Policy) (*setup.Setup, error) {
	return setup.FromManifest(sb, policy, readBundleConfig)
}

// fromContainer is the set-up of a container of an OCI client on this host as it is
// now.
func fromContainer(cfg *specs.Spec, bundle string) (*setup.Setup, error) {
	st, err := setup.FromContainer(cfg, bundle, setup.HostView{RealPath: realPath, MapsOf: mapsOf})
	if err != nil {
		return nil, err
	}
	if err := resolveMountPoints(st); err != nil {
		return nil, operation.Permanentf("%w", err)
	}
	if err := hide(st); err != nil {
		return nil, operation.Permanentf("%w", err)
	}
	return st, nil
}
