// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"fmt"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/guest"
)

// addStartHooks takes the startContainer hooks of a bundle.
func (st *setup) addStartHooks(cfg *specs.Spec, bundle string) error {
	if cfg.Hooks == nil || len(cfg.Hooks.StartContainer) == 0 {
		return nil
	}
	for i := range cfg.Hooks.StartContainer {
		if err := guest.Check(&cfg.Hooks.StartContainer[i]); err != nil {
			return fmt.Errorf("hooks.startContainer[%d].%w", i, err)
		}
	}
	st.startHooks = &bundleHooks{Bundle: bundle, Hooks: &specs.Hooks{StartContainer: cfg.Hooks.StartContainer}, Annotations: cfg.Annotations}
	return nil
}

// startTimeout is how long the hooks of a start may take.
func (st *setup) startTimeout() (d time.Duration) {
	if st.startHooks != nil {
		for i := range st.startHooks.Hooks.StartContainer {
			d += guest.Timeout(&st.startHooks.Hooks.StartContainer[i])
		}
	}
	return d
}

// giveStartHooks has the sentry start this program, from a descriptor, for the
// hooks. It becomes the application, which has no access to it or to the pipe then.
func (l *Launcher) giveStartHooks(st *setup, name string, reportFD int, d *donation) (fd int, _ *specs.Process, err error) {
	p := *st.spec.Process
	if p.Args, err = guest.Argv(&guest.Config{
		ReportFD: reportFD,
		Hooks:    st.startHooks.Hooks.StartContainer,
		State:    st.startHooks.state(name, specs.StateCreated, 1),
	}, p.Args); err != nil {
		return 0, nil, err
	}
	self, err := os.Open(l.opts.GoferPath)
	if err != nil {
		return 0, nil, fmt.Errorf("open own program: %w", err)
	}
	return d.give(self), &p, nil
}
