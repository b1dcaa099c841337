// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/setup"
)

// Host is what no sandbox of this host may be given, and no manifest says.
type Host struct {
	// State is the state directory as it is open here, StatePath its path.
	State     *os.File
	StatePath string
	// Programs are the paths of those that run as root beside this one.
	Programs []string
}

// Check refuses trees that show this program's own files, under whatever path, and
// filesystems of the kernel. It looks at the mounts after the trees were cloned; the
// gofer compares again what it really has with what is returned here.
func (s *Served) Check(st *setup.Setup, host *Host) (never []gofer.Place, overlays []string, err error) {
	table, err := ReadTable()
	if err != nil {
		return nil, nil, err
	}
	if st.Policy != nil {
		own, err := host.own(st.Policy, st.Trusted())
		if err != nil {
			return nil, nil, err
		}
		if never, err = table.NeverShared(own); err != nil {
			return nil, nil, err
		}
	}
	for _, t := range s.trees {
		if t.volume {
			m, err := table.mountOf(t.spot)
			if err != nil {
				return nil, nil, err
			}
			s.Mounts[t.at].Volume = inside(m, t.spot.Path).path
		}
		seen, err := table.Check(t.spot, t.readOnly, t.volume, never)
		var refused *Refusal
		if errors.As(err, &refused) && refused.Kernel {
			err = operation.Permanentf("%w", err)
		}
		if err != nil {
			return nil, nil, inField(t.field, err)
		}
		overlays = append(overlays, seen...)
	}
	return never, overlays, nil
}

// own is what no sandbox may be given: who writes there, or reads secrets there,
// has the host.
func (h *Host) own(policy *hostpolicy.Policy, trusted []string) ([]Own, error) {
	// The state as it is open here: its path may lead elsewhere by now.
	state, err := SpotOf(h.State)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	own := []Own{{Spot: state, Name: h.StatePath, State: true}}
	for _, p := range policy.Protected() {
		s, err := SpotAt(p)
		if err != nil {
			return nil, err
		}
		own = append(own, Own{Spot: s, Name: p})
	}
	for _, p := range slices.Concat(h.programs(), trusted, policy.Trusted()) {
		for _, p := range trustedfile.Way(p) {
			s, err := SpotAt(p)
			if err != nil {
				return nil, err
			}
			own = append(own, Own{Spot: s, Name: p, Writes: true})
		}
	}
	return own, nil
}

// programs are the binaries that run as root on the host. Anybody may read them.
func (h *Host) programs() []string {
	var out []string
	if self, err := os.Executable(); err == nil {
		out = append(out, strings.TrimSuffix(self, " (deleted)"))
	}
	for _, c := range h.Programs {
		if c != "" {
			out = append(out, c)
		}
	}
	return out
}
