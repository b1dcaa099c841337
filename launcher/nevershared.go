// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/setup"
)

// checkServed refuses trees that show this program's own files, under whatever
// path, and filesystems of the kernel. It looks at the mounts after the trees were
// cloned; the gofer compares again what it really has with what is returned here.
func (l *Launcher) checkServed(trees []*tree, st *setup.Setup) (never []gofer.Place, overlays []string, err error) {
	table, err := hostfs.ReadTable()
	if err != nil {
		return nil, nil, err
	}
	if st.Policy != nil {
		own, err := l.own(st)
		if err != nil {
			return nil, nil, err
		}
		if never, err = table.NeverShared(own); err != nil {
			return nil, nil, err
		}
	}
	for _, t := range trees {
		seen, err := table.Check(t.spot, t.readOnly, never)
		var refused *hostfs.Refusal
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
func (l *Launcher) own(st *setup.Setup) ([]hostfs.Own, error) {
	// The state as it is open here: its path may lead elsewhere by now.
	state, err := hostfs.SpotOf(l.store.RootDir())
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	own := []hostfs.Own{{Spot: state, Name: l.store.Path()}}
	for _, p := range st.Policy.Protected() {
		s, err := hostfs.SpotAt(p)
		if err != nil {
			return nil, err
		}
		own = append(own, hostfs.Own{Spot: s, Name: p})
	}
	for _, p := range append(l.programs(), st.Trusted()...) {
		for _, p := range trustedfile.Way(p) {
			s, err := hostfs.SpotAt(p)
			if err != nil {
				return nil, err
			}
			own = append(own, hostfs.Own{Spot: s, Name: p, Writes: true})
		}
	}
	return own, nil
}

// programs are the binaries that run as root on the host. Anybody may read them.
func (l *Launcher) programs() []string {
	var out []string
	if self, err := os.Executable(); err == nil {
		out = append(out, strings.TrimSuffix(self, " (deleted)"))
	}
	for _, c := range []*companion.Program{l.sentry, l.gofer} {
		if c.Path != "" {
			out = append(out, c.Path)
		}
	}
	return out
}
