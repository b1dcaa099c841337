// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"context"
	"os"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/resolve"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/volume"
)

// Setup is the set-up of a manifest that is about to be started, with what was read for it.
// Its named volumes are made if they are not there, and opened: the record, which names them,
// keeps them from being removed from here on. state is the state directory.
func (r *Read) Setup(ctx context.Context, sb *desired.Sandbox, policy *hostpolicy.Policy, img *hostfs.Image, state *os.File) (*setup.Setup, *volume.Opened, error) {
	sb = desired.Placed(sb, r.Places)
	st, err := resolve.FromManifest(sb, policy, img.Setup())
	if err != nil {
		return nil, nil, err
	}
	if err := st.UsePrivate(sb, r.Variables); err != nil {
		return nil, nil, err
	}
	st.UseFiles(r.Files)
	st.UseTimezone(r.Timezone, r.Variables)
	for i := range st.App().Volumes {
		v := &st.App().Volumes[i]
		if v.Declared = r.Objects.Volume(v.Volume); v.Declared != nil && v.Volume != "" {
			v.Size = max(v.Size, int64(v.Declared.Size)) // or they are the same
		}
	}
	volumes, err := volume.OpenAll(ctx, state, st, sb.Metadata.Name)
	return st, volumes, err
}
