// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/hostfs"
)

// checkServed refuses trees that show this program's own files, under whatever
// path, and filesystems of the kernel. It looks at the mounts after the trees were
// cloned; the gofer compares again what it really has with what is returned here.
func (l *Launcher) checkServed(trees []*tree, st *setup) (never []gofer.Place, overlays []string, err error) {
	table, err := hostfs.ReadTable()
	if err != nil {
		return nil, nil, err
	}
	if st.policy != nil {
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
			err = &terminalError{err}
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
func (l *Launcher) own(st *setup) ([]hostfs.Own, error) {
	// The state as it is open here: its path may lead elsewhere by now.
	state, err := hostfs.SpotOf(l.store.RootDir())
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	own := []hostfs.Own{{Spot: state, Name: l.store.Path()}}
	for _, p := range st.policy.Protected() {
		s, err := hostfs.SpotAt(p)
		if err != nil {
			return nil, err
		}
		own = append(own, hostfs.Own{Spot: s, Name: p})
	}
	for _, p := range append(l.programs(), st.trusted()...) {
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

// trusted are the files of its author that a sandbox must not change: the
// configuration of its bundle, and what its hooks run as root on the host.
func (st *setup) trusted() (out []string) {
	if st.bundle != "" {
		out = append(out, filepath.Join(st.bundle, "config.json"))
	}
	if st.hooks == nil {
		return out
	}
	h := st.hooks.Hooks
	//nolint:staticcheck // Prestart is deprecated in the spec and still in bundles
	for _, hook := range slices.Concat(h.Prestart, h.CreateRuntime, h.CreateContainer, h.Poststart, h.Poststop) {
		out = append(out, filepath.Clean(hook.Path))
		// Other arguments may be files that the sandbox is meant to write.
		if len(hook.Args) > 1 && filepath.IsAbs(hook.Args[1]) && slices.Contains(interpreters, filepath.Base(hook.Path)) {
			out = append(out, filepath.Clean(hook.Args[1]))
		}
	}
	return out
}

// interpreters run the script that is their first argument.
var interpreters = []string{"sh", "ash", "bash", "dash", "ksh", "zsh", "perl", "python", "python3", "ruby"}

// programs are the binaries that run as root on the host. Anybody may read them.
func (l *Launcher) programs() []string {
	var out []string
	if self, err := os.Executable(); err == nil {
		out = append(out, strings.TrimSuffix(self, " (deleted)"))
	}
	if l.opts.SentryPath != "" {
		out = append(out, l.opts.SentryPath)
	}
	return out
}
