// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/desired/envfile"
	"sandboxctl.dev/desired/zone"
)

// TZ says the same as the files, whatever an image has said, unless the author has set it.
func TestUseTimezone(t *testing.T) {
	t.Parallel()
	berlin := &zone.Zone{Name: "Europe/Berlin", Installed: true}
	for name, c := range map[string]struct {
		zone *zone.Zone
		host bool
		vars []envfile.Variable
		env  []string
		want []string
	}{
		"none":                 {nil, false, nil, []string{"A=1", "TZ=UTC"}, []string{"A=1", "TZ=UTC"}},
		"not set":              {berlin, false, nil, []string{"A=1"}, []string{"A=1", "TZ=Europe/Berlin"}},
		"the image's":          {berlin, false, nil, []string{"TZ=UTC", "TZX=1"}, []string{"TZX=1", "TZ=Europe/Berlin"}},
		"the author's":         {berlin, false, []envfile.Variable{{Name: "TZ", Value: "UTC"}}, []string{"TZ=UTC"}, []string{"TZ=UTC"}},
		"without a name":       {&zone.Zone{}, false, nil, []string{"TZ=UTC"}, nil},
		"the host's":           {berlin, true, nil, nil, []string{"TZ=Europe/Berlin"}},
		"the host lacks it":    {&zone.Zone{Name: "Europe/Berlin"}, true, nil, []string{"A=1"}, []string{"A=1"}},
		"the host lacks it, 2": {&zone.Zone{Name: "Europe/Berlin"}, false, nil, nil, []string{"TZ=Europe/Berlin"}},
	} {
		process := func() *specs.Process { return &specs.Process{Env: slices.Clone(c.env)} }
		st := &Setup{Containers: []Container{{Spec: &specs.Spec{Process: process()}, Root: Source{Host: c.host}, Private: &Private{Process: process()}}}}
		st.UseTimezone(c.zone, c.vars)
		if got := st.App().Spec.Process.Env; !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, expected %q", name, got, c.want)
		}
		if got := st.App().Private.Process.Env; !slices.Equal(got, c.want) {
			t.Errorf("%s: the sentry is told %q, expected %q", name, got, c.want)
		}
		if st.App().Root.Zone != c.zone {
			t.Errorf("%s: the root has %v", name, st.App().Root.Zone)
		}
	}
}
