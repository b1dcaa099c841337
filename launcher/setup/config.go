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
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/seccomp"
	"sandboxctl.dev/launcher/specfield"
)

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

// DecodeBundleConfig reads a config.json.
func DecodeBundleConfig(b []byte) (*specs.Spec, error) {
	var cfg specs.Spec
	if err := decodeStrictly(b, &cfg); err != nil {
		return nil, err
	}
	return &cfg, nil
}

// decodeStrictly reads JSON with no field that this program does not know and nothing
// after it.
func decodeStrictly(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
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

// checkConfig refuses what no sandbox can have, whether the bundle is that of a manifest
// or of an OCI client.
func checkConfig(c *specs.Spec, way specfield.Way) error {
	switch {
	case c.Root == nil || c.Root.Path == "":
		return fmt.Errorf("root.path: expected a path")
	case len(c.Mounts) > maxMounts:
		return fmt.Errorf("mounts: expected at most %d, got %d", maxMounts, len(c.Mounts))
	}
	if err := specfield.Check(c, way); err != nil {
		return err
	}
	if err := checkProcess(c.Process); err != nil {
		return err
	}
	for i, m := range c.Mounts {
		switch {
		case !filepath.IsAbs(m.Destination) || strings.Contains(m.Destination, ".."):
			return fmt.Errorf("mounts[%d].destination: expected an absolute path without \"..\", got %q", i, m.Destination)
		case IsBind(m) && m.Source == "":
			return fmt.Errorf("mounts[%d].source: expected a path", i)
		case !IsBind(m) && !slices.Contains(filesystems, m.Type):
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

// addConfig takes what both kinds of bundle have in common: all but root, mounts and
// namespaces.
func (st *Setup) addConfig(cfg *specs.Spec, bundle string) error {
	p := *cfg.Process
	// They are the host's, and the sentry has none.
	p.ApparmorProfile, p.SelinuxLabel, p.OOMScoreAdj = "", "", nil
	p.Capabilities = settable(p.Capabilities)
	st.App().Spec = &specs.Spec{
		Version:  specs.Version,
		Process:  &p,
		Root:     &specs.Root{Path: "/", Readonly: cfg.Root.Readonly},
		Hostname: cfg.Hostname, Domainname: cfg.Domainname,
		Linux: &specs.Linux{},
	}
	if err := st.addStartHooks(cfg, bundle); err != nil || cfg.Linux == nil {
		return err
	}
	st.App().Spec.Linux.Sysctl = cfg.Linux.Sysctl
	st.bundleLimits(cfg.Linux.Resources)
	st.App().Masked, st.App().Readonly = cfg.Linux.MaskedPaths, cfg.Linux.ReadonlyPaths
	filter, err := seccomp.Translate(cfg.Linux.Seccomp)
	if err != nil {
		return err
	}
	st.App().Spec.Linux.Seccomp, st.App().Errnos = filter.Spec, filter.Errnos
	return nil
}

// addMounts adds the mounts of a bundle. source is the tree of the host that a bind mount
// shows.
func (st *Setup) addMounts(mounts []specs.Mount, client bool, source func(field string, m *specs.Mount, o MountOptions) (Source, error)) error {
	for i := range mounts {
		m := &mounts[i]
		o, err := parseMountOptions(m, client)
		if err != nil {
			return operation.Permanentf("mounts[%d].%w", i, err)
		}
		if !IsBind(*m) {
			if o.CopyUp {
				st.App().CopyUp = append(st.App().CopyUp, m.Destination)
			}
			st.App().Spec.Mounts = append(st.App().Spec.Mounts, o.own(*m))
			continue
		}
		field := fmt.Sprintf("mounts[%d].source", i)
		src, err := source(field, m, o)
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		src.Options = o
		st.AddBind(m.Destination, src)
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
