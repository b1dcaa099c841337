// SPDX-License-Identifier: Apache-2.0

package networks

import (
	"slices"
	"testing"
)

// Ports of the host change beside what runs, but not those that plugins of CNI were told.
func TestRestarting(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]int{Bridge: 0, CNI: 1, None: 0} {
		n := Network{Mode: mode, CNI: CNINames{"lab"}, Ports: []Port{{ContainerPort: 80, HostPort: 8080}}}
		if got := n.Restarting(); len(got.Ports) != want || !slices.Equal(got.CNI, CNINames{"lab"}) {
			t.Errorf("%s: %+v", mode, got)
		}
		if published := mode != None; (len(n.Published()) == 1) != published || n.Wants() != published {
			t.Errorf("%s: published %v, wants %v", mode, n.Published(), n.Wants())
		}
	}
}
