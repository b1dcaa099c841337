// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/resolve"
	"sandboxctl.dev/launcher/setup"
)

// ErrNotRestorable says that a restore would fail; what it is joined with says
// why.
var ErrNotRestorable = errors.New("the checkpoint can't be restored")

// CheckManifest says whether a sandbox of the manifest could be restored from
// the checkpoint in a directory: nil, or ErrNotRestorable with every reason. img is the
// image that it would have as its root, nil if that is none.
func CheckManifest(ctx context.Context, sb *desired.Sandbox, policy *hostpolicy.Policy, img *setup.Image, path, sentryPath string) error {
	st, err := resolve.FromManifest(sb, nil, img)
	if err != nil {
		return err
	}
	st.Policy = policy
	return check(ctx, st, path, sentryPath)
}

// CheckContainer is CheckManifest for the bundle of a container.
func CheckContainer(ctx context.Context, cfg *specs.Spec, bundle, path, sentryPath string) error {
	st, err := resolve.FromContainer(cfg, bundle)
	if err != nil {
		return err
	}
	return check(ctx, st, path, sentryPath)
}

func check(ctx context.Context, st *setup.Setup, path, sentryPath string) error {
	img, err := Open(path)
	if err != nil {
		return err
	}
	defer img.Close()
	version, err := companion.Check(ctx, companion.SentryName, sentryPath)
	if err != nil {
		return err
	}
	return img.Preflight(st, version)
}

// Preflight says why a restore into the set-up would fail: every reason at
// once, nil if there is none.
func (i *Image) Preflight(st *setup.Setup, version string) error {
	features, err := cpuFeatures()
	if err != nil {
		return err
	}
	reasons := i.Info.obstacles(st, version, features)
	if err := i.CheckSize(); err != nil {
		reasons = append(reasons, err.Error())
	}
	if len(reasons) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrNotRestorable, strings.Join(reasons, "; "))
}

// CheckSize says whether the state is as long as it was written.
func (i *Image) CheckSize() error {
	var file unix.Stat_t
	switch err := unix.Fstat(int(i.State.Fd()), &file); {
	case err != nil:
		return fmt.Errorf("look at state: %w", err)
	case file.Mode&unix.S_IFMT != unix.S_IFREG || file.Size != i.Info.StateBytes:
		return fmt.Errorf("%s has %d bytes, it was written with %d", stateFile, file.Size, i.Info.StateBytes)
	}
	return nil
}

// obstacles are the reasons why a restore would fail on a host with a sentry of
// the version and a processor with the features.
func (c *Info) obstacles(st *setup.Setup, version string, features []string) []string {
	if c.Version != layoutVersion || c.Spec == nil || c.Spec.Process == nil || c.Spec.Root == nil {
		return []string{fmt.Sprintf("it is a checkpoint of version %d, this program knows %d", c.Version, layoutVersion)}
	}
	var out []string
	told := func(what string, then, now any) {
		if !same(then, now) {
			out = append(out, fmt.Sprintf("%s was %s and is %s", what, text(then), text(now)))
		}
	}
	told("the sentry's gVisor version", c.GVisor, version)
	told("the architecture", c.Arch, runtime.GOARCH)
	differ := told
	if c.secret() {
		differ = func(what string, then, now any) {
			if !same(then, now) {
				out = append(out, what+" differs")
			}
		}
	}
	var missing []string
	for _, f := range c.CPUFeatures {
		if !slices.Contains(features, f) {
			missing = append(missing, f)
		}
	}
	if c.Arch == runtime.GOARCH && len(missing) > 0 {
		out = append(out, "this processor lacks "+strings.Join(missing, ", "))
	}
	differ("the network", c.Network, st.Network())
	differ("the overlay", c.Overlay, st.App().Overlay)
	// gVisor goes on with the size that is in the state.
	differ("overlaySize", c.OverlaySize, st.App().OverlaySize)
	out = append(out, c.diskObstacle(st)...)
	// The state holds places in the file of the image.
	differ("the image", c.Image, digestOf(st))
	// What gVisor compares too, after it has started everything.
	then, now := c.Spec, st.App().Spec
	differ("root.readonly", then.Root.Readonly, now.Root.Readonly)
	out = append(out, mountObstacles(then.Mounts, now.Mounts, c.secret())...)
	p, q := then.Process, now.Process
	differ("process.terminal", p.Terminal, q.Terminal)
	differ("process.args", p.Args, q.Args)
	differ("process.cwd", p.Cwd, q.Cwd)
	differ("process.user", p.User, q.User)
	differ("process.rlimits", p.Rlimits, q.Rlimits)
	differ("process.capabilities", p.Capabilities, q.Capabilities)
	differ("process.noNewPrivileges", p.NoNewPrivileges, q.NoNewPrivileges)
	differ("linux.seccomp", linux(then).Seccomp, linux(now).Seccomp)
	differ("linux.maskedPaths", linux(then).MaskedPaths, linux(now).MaskedPaths)
	differ("linux.readonlyPaths", linux(then).ReadonlyPaths, linux(now).ReadonlyPaths)
	return out
}

// secret says whether values of the description are shown to nobody. A snapshot is used by the
// manifests of others, whose authors read the warnings: its arguments and paths are not theirs.
// A checkpoint is used by who has its directory.
func (c *Info) secret() bool { return c.Checksum != "" }

// OtherEnvironment says whether the application, which goes on with the environment in the state,
// may lack what the set-up says. Private variables are in no description, and can't be compared.
// Who has called Preflight may ask.
func (c *Info) OtherEnvironment(st *setup.Setup) bool {
	return c.PrivateEnv || st.App().PrivateEnv || !same(c.Spec.Process.Env, st.App().Spec.Process.Env)
}

// KeepDiskSizes gives a set-up the sizes that are in the state, where its manifest says none.
func (c *Info) KeepDiskSizes(st *setup.Setup) {
	st.DefaultDisk = cmp.Or(c.DefaultDisk, st.DefaultDisk)
}

// diskObstacle: the sizes that are kept may be more than the policy allows by now.
func (c *Info) diskObstacle(st *setup.Setup) []string {
	if st.Policy == nil || c.DefaultDisk == 0 {
		return nil
	}
	kept := *st
	c.KeepDiskSizes(&kept)
	left := int64(*st.Policy.MaxDiskSize)
	for _, p := range kept.OnDisk() {
		// By subtraction: a sum of sizes can overflow.
		if p.Size > left {
			return []string{fmt.Sprintf("with the sizes it has on the disk it needs more than the %s that the host policy allows (maxDiskSize)", st.Policy.MaxDiskSize)}
		}
		left -= p.Size
	}
	return nil
}

// digestOf is the digest of the image that the root is, "" if it is none.
func digestOf(st *setup.Setup) string {
	if img := st.App().Root.Image; img != nil {
		return img.Digest
	}
	return ""
}

// mountObstacles compares mounts by destination: their order does not matter. Of secret ones
// nothing else is named.
func mountObstacles(then, now []specs.Mount, secret bool) (out []string) {
	find := func(in []specs.Mount, dest string) *specs.Mount {
		for i := range in {
			if in[i].Destination == dest {
				return &in[i]
			}
		}
		return nil
	}
	for i := range then {
		switch m := find(now, then[i].Destination); {
		case m == nil:
			out = append(out, "there was a mount at "+then[i].Destination)
		case m.Type == then[i].Type && same(m.Options, then[i].Options):
		case secret:
			out = append(out, fmt.Sprintf("the mount at %s differs", m.Destination))
		default:
			out = append(out, fmt.Sprintf("the mount at %s was %s and is %s", m.Destination, text(then[i]), text(*m)))
		}
	}
	for i := range now {
		if find(then, now[i].Destination) == nil {
			out = append(out, "there was no mount at "+now[i].Destination)
		}
	}
	return out
}

func linux(s *specs.Spec) *specs.Linux {
	if s.Linux == nil {
		return &specs.Linux{}
	}
	return s.Linux
}

// same compares as JSON does: an empty list and none are one.
func same(a, b any) bool {
	return reflect.DeepEqual(a, b) || encode(a) == encode(b)
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil || string(b) == "null" || string(b) == "[]" || string(b) == "{}" {
		return "none"
	}
	return string(b)
}

// text is for messages: what is longer than a line is cut.
func text(v any) string { return untrusted.Line(encode(v), 200) }
