// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"

	"sandboxctl.dev/desired/hostpolicy"
)

// AllowedBy says why a policy does not allow what was built for a manifest, nil if it
// does. It may be another policy than that of the start.
func (st *Setup) AllowedBy(policy *hostpolicy.Policy) error {
	for _, s := range st.Sources() {
		if s.Kind == "" {
			continue // the view of the host, or an empty file
		}
		if _, err := policy.AllowedRoot(s.Kind, s.Path, !s.ReadOnly); err != nil {
			return fmt.Errorf("%s: %w", s.Field, err)
		}
	}
	if st.App().Bundle == "" {
		return nil // the rest is in the manifest
	}
	if _, err := policy.AllowedRoot(hostpolicy.BundlePath, st.App().Bundle, false); err != nil {
		return fmt.Errorf("spec.root.bundle: %w", err)
	}
	if err := allowProcess(policy, st.App().Spec.Process, nil, st.App().Bundle); err != nil {
		return fmt.Errorf("spec.root.bundle: %w", err)
	}
	if err := st.allowLimits(policy); err != nil {
		return fmt.Errorf("spec.root.bundle: %w", err)
	}
	return nil
}
