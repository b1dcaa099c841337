// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/guest"
)

func hasHooks(h *specs.Hooks) bool {
	//nolint:staticcheck // Prestart is deprecated in the spec and still in bundles
	return len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.Poststart)+len(h.Poststop) > 0
}

// Hooks are the hooks of a manifest's bundle, which is owned by us and
// which nobody else may write.
type Hooks struct {
	Bundle      string            `json:"bundle"`
	Hooks       *specs.Hooks      `json:"hooks"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Env is the application's, for the createContainer hooks.
	Env []string `json:"env,omitempty"`
}

// State is what the OCI specification gives a hook to read.
func (h *Hooks) State(name string, status specs.ContainerState, pid int) specs.State {
	return specs.State{Version: specs.Version, ID: name, Status: status, Pid: pid, Bundle: h.Bundle, Annotations: h.Annotations}
}

// AllowHooks says whether the policy lets the hooks of a bundle run as root on the
// host.
func AllowHooks(policy *hostpolicy.Policy, bundle string) error {
	if !policy.Root.Hooks {
		return fmt.Errorf("hooks: they run as root on the host, which the host policy (%s) does not allow; remove them, or have the administrator set root.hooks", policy.Source())
	}
	_, err := policy.AllowedRoot(hostpolicy.BundlePath, bundle, false)
	return err
}

// Trusted are the files of its author that a sandbox must not change: the
// configuration of its bundle, and what its hooks run as root on the host.
func (st *Setup) Trusted() (out []string) {
	if st.App().Bundle != "" {
		out = append(out, filepath.Join(st.App().Bundle, "config.json"))
	}
	if st.App().Hooks == nil {
		return out
	}
	h := st.App().Hooks.Hooks
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

// addStartHooks takes the startContainer hooks of a bundle.
func (st *Setup) addStartHooks(cfg *specs.Spec, bundle string) error {
	if cfg.Hooks == nil || len(cfg.Hooks.StartContainer) == 0 {
		return nil
	}
	for i := range cfg.Hooks.StartContainer {
		if err := guest.Check(&cfg.Hooks.StartContainer[i]); err != nil {
			return fmt.Errorf("hooks.startContainer[%d].%w", i, err)
		}
	}
	st.App().StartHooks = &Hooks{Bundle: bundle, Hooks: &specs.Hooks{StartContainer: cfg.Hooks.StartContainer}, Annotations: cfg.Annotations}
	return nil
}

// StartTimeout is how long the hooks of a start may take.
func (st *Setup) StartTimeout() (d time.Duration) {
	if st.App().StartHooks != nil {
		for i := range st.App().StartHooks.Hooks.StartContainer {
			d += guest.Timeout(&st.App().StartHooks.Hooks.StartContainer[i])
		}
	}
	return d
}
