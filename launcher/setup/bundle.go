// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"errors"
	"fmt"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/specfield"
)

// fromBundle takes the process, root and mounts of an OCI bundle. What this
// program can't honour is refused, never dropped in silence; annotations are
// the exception, they are for others and never change what a sandbox may do.
func (st *Setup) fromBundle(dir string, readBundle func(*Source) (*specs.Spec, error)) error {
	bundle, err := st.allow(hostpolicy.BundlePath, dir, true)
	if err != nil {
		return fmt.Errorf("spec.root.bundle: %w", err)
	}
	cfg, err := readBundle(&bundle)
	if err != nil {
		return fmt.Errorf("spec.root.bundle: %w", err)
	}
	return st.FromConfig(dir, cfg)
}

// FromConfig is fromBundle for what was read.
func (st *Setup) FromConfig(dir string, cfg *specs.Spec) error {
	if err := st.fromConfig(dir, cfg); err != nil {
		return fmt.Errorf("spec.root.bundle: read %s/config.json: %w", dir, err)
	}
	return nil
}

func (st *Setup) fromConfig(dir string, cfg *specs.Spec) (err error) {
	if err := checkConfig(cfg, specfield.Bundle); err != nil {
		return operation.Permanentf("%w", err)
	}
	if err := allowProcess(st.Policy, cfg.Process, cfg.Hooks, dir); err != nil {
		return operation.Permanentf("%w", err)
	}
	if st.App().Root, err = st.allowInBundle(dir, cfg.Root.Path, hostpolicy.DirPath, cfg.Root.Readonly || st.App().Overlay != desired.OverlayNone); err != nil {
		return fmt.Errorf("root.path: %w", err)
	}
	st.App().Root.Field, st.App().Bundle = "spec.root.bundle: root.path", dir
	if cfg.Hooks != nil && hasHooks(cfg.Hooks) {
		st.App().Hooks = &Hooks{Bundle: dir, Hooks: cfg.Hooks, Annotations: cfg.Annotations, Env: cfg.Process.Env}
	}
	if err := st.addConfig(cfg, dir); err != nil {
		return operation.Permanentf("%w", err)
	}
	if err := st.allowLimits(st.Policy); err != nil {
		return operation.Permanentf("%w", err)
	}
	return st.addMounts(cfg.Mounts, false, func(field string, m *specs.Mount, o MountOptions) (Source, error) {
		src, err := st.allowInBundle(dir, m.Source, hostpolicy.VolumePath, o.ReadOnly)
		src.Field = "spec.root.bundle: " + field
		return src, err
	})
}

// allowInBundle is allow for a path that a bundle names: in the bundle itself,
// which is allowed, or elsewhere as of the kind given.
func (st *Setup) allowInBundle(bundle, path, kind string, readOnly bool) (Source, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(bundle, path)
	}
	path = filepath.Clean(path)
	if below(path, bundle) {
		kind = hostpolicy.BundlePath
	}
	return st.allow(kind, path, readOnly)
}

// allowProcess judges by the policy what a manifest would say itself, and with a
// bundle does not.
func allowProcess(policy *hostpolicy.Policy, p *specs.Process, hooks *specs.Hooks, dir string) error {
	if policy == nil {
		return nil
	}
	if policy.RootUser != nil && !*policy.RootUser && p.User.UID == 0 {
		return fmt.Errorf("process.user: the host policy (%s) does not allow applications to run as root of their sandbox; use another uid", policy.Source())
	}
	if hooks != nil && hasHooks(hooks) {
		if err := AllowHooks(policy, dir); err != nil {
			return err
		}
	}
	c := p.Capabilities
	if c == nil {
		return nil
	}
	for _, set := range [][]string{c.Bounding, c.Effective, c.Inheritable, c.Permitted, c.Ambient} {
		for _, n := range set {
			if !policy.CapabilityAllowed(n) {
				return fmt.Errorf("process.capabilities: the host policy (%s) does not allow %q; remove it, or have the administrator add it to capabilities", policy.Source(), n)
			}
		}
	}
	return nil
}

// allowLimits judges by the policy the limits that a bundle has asked for.
func (st *Setup) allowLimits(policy *hostpolicy.Policy) error {
	if policy == nil {
		return nil
	}
	asked := desired.Resources{CPU: scalar.CPU(st.Limits.CPU), Memory: scalar.Bytes(st.Limits.Memory), PIDs: st.Limits.PIDs}
	for _, e := range policy.CheckResources("linux.resources", asked) {
		return errors.New(e.Field + ": " + e.Message)
	}
	return nil
}
