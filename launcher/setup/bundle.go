// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/cgroup"
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
func (st *Setup) FromConfig(dir string, cfg *specs.Spec) (err error) {
	if err := checkBundle(cfg); err != nil {
		return operation.Permanentf("spec.root.bundle: read %s/config.json: %w", dir, err)
	}
	if err := allowProcess(st.Policy, cfg.Process, cfg.Hooks, dir); err != nil {
		return operation.Permanentf("spec.root.bundle: read %s/config.json: %w", dir, err)
	}
	if st.App().Root, err = st.allowInBundle(dir, cfg.Root.Path, hostpolicy.DirPath, cfg.Root.Readonly || st.App().Overlay != desired.OverlayNone); err != nil {
		return fmt.Errorf("spec.root.bundle: read %s/config.json: root.path: %w", dir, err)
	}
	st.App().Root.Field, st.App().Bundle = "spec.root.bundle: root.path", dir

	p := *cfg.Process
	p.ApparmorProfile, p.SelinuxLabel, p.OOMScoreAdj = "", "", nil
	p.Capabilities = settable(p.Capabilities)
	st.App().Spec = &specs.Spec{
		Version:  specs.Version,
		Process:  &p,
		Root:     &specs.Root{Path: "/", Readonly: cfg.Root.Readonly},
		Hostname: cfg.Hostname, Domainname: cfg.Domainname,
		Linux: &specs.Linux{},
	}
	if cfg.Hooks != nil && hasHooks(cfg.Hooks) {
		st.App().Hooks = &Hooks{Bundle: dir, Hooks: cfg.Hooks, Annotations: cfg.Annotations, Env: cfg.Process.Env}
	}
	if err := st.addStartHooks(cfg, dir); err != nil {
		return operation.Permanentf("spec.root.bundle: read %s/config.json: %w", dir, err)
	}
	if cfg.Linux != nil {
		st.App().Spec.Linux.Sysctl = cfg.Linux.Sysctl
		if err := st.useSeccomp(cfg.Linux.Seccomp); err != nil {
			return operation.Permanentf("spec.root.bundle: read %s/config.json: %w", dir, err)
		}
		st.bundleLimits(cfg.Linux.Resources)
		st.App().Masked, st.App().Readonly = Outermost(cfg.Linux.MaskedPaths), cfg.Linux.ReadonlyPaths
		if err := st.allowLimits(st.Policy); err != nil {
			return operation.Permanentf("spec.root.bundle: read %s/config.json: %w", dir, err)
		}
	}
	for i, m := range cfg.Mounts {
		if IsMasked(m.Destination, st.App().Masked) {
			continue
		}
		o, err := parseMountOptions(&m, false)
		if err != nil {
			return operation.Permanentf("spec.root.bundle: read %s/config.json: mounts[%d].%w", dir, i, err)
		}
		if IsBind(m) {
			src, err := st.allowInBundle(dir, m.Source, hostpolicy.VolumePath, o.ReadOnly)
			if err != nil {
				return fmt.Errorf("spec.root.bundle: read %s/config.json: mounts[%d].source: %w", dir, i, err)
			}
			src.Field, src.Options = fmt.Sprintf("spec.root.bundle: mounts[%d].source", i), o
			st.AddBind(m.Destination, src)
			continue
		}
		st.App().Spec.Mounts = append(st.App().Spec.Mounts, o.own(m))
	}
	return nil
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

// bundleLimits uses the limits of the bundle where the manifest has none.
func (st *Setup) bundleLimits(r *specs.LinuxResources) {
	if r == nil {
		return
	}
	if st.Limits.Memory == 0 && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
		st.Limits.Memory = *r.Memory.Limit
	}
	if st.Limits.PIDs == 0 && r.Pids != nil && r.Pids.Limit > 0 {
		st.Limits.PIDs = r.Pids.Limit
	}
	if st.Limits.CPU == 0 && r.CPU != nil && r.CPU.Quota != nil && r.CPU.Period != nil && *r.CPU.Quota > 0 && *r.CPU.Period > 0 {
		st.Limits.CPU = milliCPU(*r.CPU.Quota, *r.CPU.Period)
	}
}

// allowLimits judges by the policy the limits that a bundle has asked for.
func (st *Setup) allowLimits(policy *hostpolicy.Policy) error {
	if policy == nil {
		return nil
	}
	asked := desired.Resources{CPU: desired.CPU(st.Limits.CPU), Memory: desired.Bytes(st.Limits.Memory), PIDs: st.Limits.PIDs}
	for _, e := range policy.CheckResources("linux.resources", asked) {
		return errors.New(e.Field + ": " + e.Message)
	}
	return nil
}

// filesystems are those that gVisor can mount by itself, and mqueue, which its
// applications have without. It passes over any other,
// and an application would write into its root what was meant for another place.
var filesystems = []string{"proc", "sysfs", "tmpfs", "devpts", "dev", "cgroup", "cgroup2", "mqueue"}

// milliCPU are thousandths of a processor, at most desired.MaxCPU: more is no
// limit, and what does not fit into a number must not become a negative one.
func milliCPU(quota int64, period uint64) int64 {
	hi, lo := bits.Mul64(uint64(quota), 1000)
	if hi >= period {
		return desired.MaxCPU
	}
	q, _ := bits.Div64(hi, lo, period)
	return int64(min(max(q, desired.MinCPU), desired.MaxCPU))
}

// IsBind says whether a mount shows a tree of the host.
func IsBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// DecodeBundleConfig reads a config.json with no field that this program does not
// know and nothing after it.
func DecodeBundleConfig(b []byte) (*specs.Spec, error) {
	var cfg specs.Spec
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows it")
	}
	return &cfg, nil
}

// maxMounts bounds the mounts of a config.json: each takes three descriptors of
// the daemon's.
const maxMounts = 1000

// checkProcess refuses what no process can be.
func checkProcess(p *specs.Process) error {
	const noID = 1<<32 - 1 // "leave it as it is" for system calls
	switch {
	case p == nil || len(p.Args) == 0 || p.Args[0] == "":
		return fmt.Errorf("process.args: expected a command")
	case !filepath.IsAbs(p.Cwd):
		return fmt.Errorf("process.cwd: expected an absolute path, got %q", p.Cwd)
	case p.User.UID == noID || p.User.GID == noID || slices.Contains(p.User.AdditionalGids, noID):
		return fmt.Errorf("process.user: %d is no id", uint32(noID))
	}
	for _, s := range slices.Concat(p.Args, p.Env, []string{p.Cwd}) {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("process: %.60q holds a NUL", s)
		}
	}
	return nil
}

func checkBundle(c *specs.Spec) error {
	if err := checkProcess(c.Process); err != nil {
		return err
	}
	switch {
	case c.Root == nil || c.Root.Path == "":
		return fmt.Errorf("root.path: expected a path")
	case len(c.Mounts) > maxMounts:
		return fmt.Errorf("mounts: expected at most %d, got %d", maxMounts, len(c.Mounts))
	}
	if err := specfield.Check(c, specfield.Bundle); err != nil {
		return err
	}
	for i, m := range c.Mounts {
		if !filepath.IsAbs(m.Destination) || strings.Contains(m.Destination, "..") {
			return fmt.Errorf("mounts[%d].destination: expected an absolute path without \"..\", got %q", i, m.Destination)
		}
		if !IsBind(m) && !slices.Contains(filesystems, m.Type) {
			return fmt.Errorf("mounts[%d].type: expected bind or one of %s, got %q", i, strings.Join(filesystems, ", "), m.Type)
		}
	}
	if err := checkCapabilities(c.Process.Capabilities); err != nil {
		return err
	}
	if c.Linux != nil {
		return errors.Join(checkHidden(c.Linux), cgroup.CheckPIDs(c.Linux.Resources))
	}
	return nil
}
