// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/specfield"
)

// maxBundleConfig bounds config.json.
const maxBundleConfig = 1 << 20

// fromBundle takes the process, root and mounts of an OCI bundle. What this
// program can't honour is refused, never dropped in silence; annotations are
// the exception, they are for others and never change what a sandbox may do.
func (st *setup) fromBundle(dir string) error {
	bundle, err := st.allow(hostpolicy.BundlePath, dir, true)
	if err != nil {
		return fmt.Errorf("spec.root.bundle: %w", err)
	}
	cfg, err := readBundleConfig(bundle)
	if err != nil {
		return fmt.Errorf("spec.root.bundle: %w", err)
	}
	return st.fromConfig(dir, cfg)
}

// fromConfig is fromBundle for what was read.
func (st *setup) fromConfig(dir string, cfg *specs.Spec) (err error) {
	if err := checkBundle(cfg); err != nil {
		return terminalf("spec.root.bundle: read %s/config.json: %w", dir, err)
	}
	if err := st.allowProcess(cfg, dir); err != nil {
		return terminalf("spec.root.bundle: read %s/config.json: %w", dir, err)
	}
	if st.root, err = st.allowInBundle(dir, cfg.Root.Path, hostpolicy.DirPath, cfg.Root.Readonly || st.overlay != desired.OverlayNone); err != nil {
		return fmt.Errorf("spec.root.bundle: read %s/config.json: root.path: %w", dir, err)
	}
	st.root.field, st.bundle = "spec.root.bundle: root.path", dir

	p := *cfg.Process
	p.ApparmorProfile, p.SelinuxLabel, p.OOMScoreAdj = "", "", nil
	p.Capabilities = settable(p.Capabilities)
	st.spec = &specs.Spec{
		Version:  specs.Version,
		Process:  &p,
		Root:     &specs.Root{Path: "/", Readonly: cfg.Root.Readonly},
		Hostname: cfg.Hostname, Domainname: cfg.Domainname,
		Linux: &specs.Linux{},
	}
	if cfg.Hooks != nil && hasHooks(cfg.Hooks) {
		st.hooks = &bundleHooks{Bundle: dir, Hooks: cfg.Hooks, Annotations: cfg.Annotations, env: cfg.Process.Env}
	}
	if err := st.addStartHooks(cfg, dir); err != nil {
		return terminalf("spec.root.bundle: read %s/config.json: %w", dir, err)
	}
	if cfg.Linux != nil {
		st.spec.Linux.Sysctl = cfg.Linux.Sysctl
		if err := st.useSeccomp(cfg.Linux.Seccomp); err != nil {
			return terminalf("spec.root.bundle: read %s/config.json: %w", dir, err)
		}
		st.bundleLimits(cfg.Linux.Resources)
		st.masked, st.readonly = outermost(cfg.Linux.MaskedPaths), cfg.Linux.ReadonlyPaths
		if err := st.allowLimits(); err != nil {
			return terminalf("spec.root.bundle: read %s/config.json: %w", dir, err)
		}
	}
	for i, m := range cfg.Mounts {
		if isMasked(m.Destination, st.masked) {
			continue
		}
		o, err := parseMountOptions(&m, false)
		if err != nil {
			return terminalf("spec.root.bundle: read %s/config.json: mounts[%d].%w", dir, i, err)
		}
		if isBind(m) {
			src, err := st.allowInBundle(dir, m.Source, hostpolicy.VolumePath, o.readOnly)
			if err != nil {
				return fmt.Errorf("spec.root.bundle: read %s/config.json: mounts[%d].source: %w", dir, i, err)
			}
			src.field, src.options = fmt.Sprintf("spec.root.bundle: mounts[%d].source", i), o
			st.addBind(m.Destination, src)
			continue
		}
		st.spec.Mounts = append(st.spec.Mounts, o.own(m))
	}
	return nil
}

// allowInBundle is allow for a path that a bundle names: in the bundle itself,
// which is allowed, or elsewhere as of the kind given.
func (st *setup) allowInBundle(bundle, path, kind string, readOnly bool) (source, error) {
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
func (st *setup) allowProcess(cfg *specs.Spec, dir string) error {
	if st.policy == nil {
		return nil
	}
	if st.policy.RootUser != nil && !*st.policy.RootUser && cfg.Process.User.UID == 0 {
		return fmt.Errorf("process.user: the host policy (%s) does not allow applications to run as root of their sandbox; use another uid", st.policy.Source())
	}
	if cfg.Hooks != nil && hasHooks(cfg.Hooks) {
		if err := allowHooks(st.policy, dir); err != nil {
			return err
		}
	}
	c := cfg.Process.Capabilities
	if c == nil {
		return nil
	}
	for _, set := range [][]string{c.Bounding, c.Effective, c.Inheritable, c.Permitted, c.Ambient} {
		for _, n := range set {
			if !st.policy.CapabilityAllowed(n) {
				return fmt.Errorf("process.capabilities: the host policy (%s) does not allow %q; remove it, or have the administrator add it to capabilities", st.policy.Source(), n)
			}
		}
	}
	return nil
}

// bundleLimits uses the limits of the bundle where the manifest has none.
func (st *setup) bundleLimits(r *specs.LinuxResources) {
	if r == nil {
		return
	}
	if st.limits.Memory == 0 && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
		st.limits.Memory = *r.Memory.Limit
	}
	if st.limits.PIDs == 0 && r.Pids != nil && r.Pids.Limit > 0 {
		st.limits.PIDs = r.Pids.Limit
	}
	if st.limits.CPU == 0 && r.CPU != nil && r.CPU.Quota != nil && r.CPU.Period != nil && *r.CPU.Quota > 0 && *r.CPU.Period > 0 {
		st.limits.CPU = milliCPU(*r.CPU.Quota, *r.CPU.Period)
	}
}

// allowLimits judges by the policy the limits that a bundle has asked for.
func (st *setup) allowLimits() error {
	if st.policy == nil {
		return nil
	}
	asked := desired.Resources{CPU: desired.CPU(st.limits.CPU), Memory: desired.Bytes(st.limits.Memory), PIDs: st.limits.PIDs}
	for _, e := range st.policy.CheckResources("linux.resources", asked) {
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

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// readBundleConfig reads config.json without following a link: the bundle's
// author must not choose which file of the host root reads.
func readBundleConfig(bundle source) (*specs.Spec, error) {
	dir := bundle.path
	d, err := bundle.open()
	if err != nil {
		return nil, fmt.Errorf("open bundle %s: %w", dir, unfitIf(err))
	}
	defer d.Close()
	if err := checkInPlace(d, dir); err != nil {
		return nil, err
	}
	f, err := openBeneath(int(d.Fd()), "config.json", unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open %s/config.json: %w", dir, unfitIf(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open %s/config.json: %w", dir, err)
	}
	// It may name any directory of the host, so it is worth as much as a
	// manifest: nobody else may have written it.
	for _, f := range []*os.File{d, f} {
		if err := checkOwned(f); err != nil {
			return nil, terminalf("read %s/config.json: %w", dir, err)
		}
	}
	if !info.Mode().IsRegular() || info.Size() > maxBundleConfig {
		return nil, terminalf("read %s/config.json: expected a regular file of at most %d bytes", dir, maxBundleConfig)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxBundleConfig))
	if err != nil {
		return nil, fmt.Errorf("read %s/config.json: %w", dir, err)
	}
	cfg, err := decodeBundleConfig(b)
	if err != nil {
		return nil, terminalf("read %s/config.json: %w", dir, err)
	}
	return cfg, nil
}

// decodeBundleConfig reads a config.json with no field that this program does not
// know and nothing after it.
func decodeBundleConfig(b []byte) (*specs.Spec, error) {
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
			return fmt.Errorf("process: %q holds a NUL", printable(s, 60))
		}
	}
	return nil
}

// checkInPlace refuses a bundle that others could put another one in the place
// of between the reading of its config.json and the opening of its root.
func checkInPlace(d *os.File, dir string) error {
	t, err := trustedfile.Open(dir)
	if err != nil {
		return terminalf("open bundle: %w", err)
	}
	defer t.Close()
	a, aerr := d.Stat()
	b, berr := t.Stat()
	if err := errors.Join(aerr, berr); err != nil {
		return fmt.Errorf("open bundle %s: %w", dir, err)
	}
	if !os.SameFile(a, b) {
		return fmt.Errorf("open bundle %s: it was replaced meanwhile", dir)
	}
	return nil
}

func checkOwned(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), "", &st, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s belongs to user %d with mode %04o; it must be the daemon's user's, and nobody else may write it", f.Name(), st.Uid, st.Mode&0o7777)
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
		if !isBind(m) && !slices.Contains(filesystems, m.Type) {
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

func hasHooks(h *specs.Hooks) bool {
	//nolint:staticcheck // Prestart is deprecated in the spec and still in bundles
	return len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.Poststart)+len(h.Poststop) > 0
}
