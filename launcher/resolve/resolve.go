// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"reflect"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/setup"
)

// FromManifest is the set-up of a manifest on this host as it is now. img is the image
// of its root, nil if that is none.
func FromManifest(sb *desired.Sandbox, policy *hostpolicy.Policy, img *setup.Image) (*setup.Setup, error) {
	return setup.FromManifest(sb, policy, img, readBundleConfig)
}

// FromContainer is the set-up of a container of an OCI client on this host as it is
// now.
func FromContainer(cfg *specs.Spec, bundle string) (*setup.Setup, error) {
	st, err := setup.FromContainer(cfg, bundle, setup.HostView{RealPath: realPath, MapsOf: mapsOf})
	if err != nil {
		return nil, err
	}
	if err := mountPoints(st, nil); err != nil {
		return nil, operation.Permanentf("%w", err)
	}
	if err := hide(st, nil); err != nil {
		return nil, operation.Permanentf("%w", err)
	}
	return st, nil
}

// ForStart completes the set-up of a manifest that is about to be started. It looks at
// the files of its trees, and of the image that its root is, if it is one. What a checkpoint is compared with was described without.
func ForStart(st *setup.Setup, img *hostfs.Image) error {
	described := st.CopySpec()
	if err := mountPoints(st, img); err != nil {
		return err
	}
	if len(st.App().Masked)+len(st.App().Readonly) > 0 {
		if err := hide(st, img); err != nil {
			return fmt.Errorf("spec.root.bundle: %w", err)
		}
	}
	if !reflect.DeepEqual(described, st.App().Spec) {
		st.App().Described = described
	}
	return nil
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
