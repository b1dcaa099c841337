// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/desired/hostpolicy"
)

// oldHooksFile is where versions before 3 of the record kept the poststop hooks.
// They are in the record now, whose checksum tells what this program wrote from
// what somebody else put there.
const oldHooksFile = "hooks.json"

// bundleHooks are the hooks of a manifest's bundle, which is owned by us and
// which nobody else may write.
type bundleHooks struct {
	Bundle      string            `json:"bundle"`
	Hooks       *specs.Hooks      `json:"hooks"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// env is the application's. It is not on record.
	env []string
}

func (h *bundleHooks) state(name string, status specs.ContainerState, pid int) specs.State {
	return specs.State{Version: specs.Version, ID: name, Status: status, Pid: pid, Bundle: h.Bundle, Annotations: h.Annotations}
}

// set is the hooks of one point. They don't have the score of the daemon, which
// spares it.
func (h *bundleHooks) set(kind string, hooks []specs.Hook, limit time.Duration) HookSet {
	return HookSet{Kind: kind, Hooks: hooks, Env: h.environment(kind), OOMScore: new(SandboxOOMScore), Limit: limit}
}

// environment is that of hooks without one of their own. Those of the container
// have the application's, as with runc. Those of the runtime have the search path
// of the daemon and nothing else of it.
func (h *bundleHooks) environment(kind string) []string {
	if kind == "createContainer" {
		return h.env
	}
	if path := os.Getenv("PATH"); path != "" {
		return []string{"PATH=" + path}
	}
	return []string{defaultPath}
}

// beforeStart runs the hooks that come between the sandbox and its application.
// One that fails fails the start. The poststop hooks are on record before: the
// bundle may be another one when the sandbox ends.
func (l *Launcher) beforeStart(ctx context.Context, rec *actual.Record, h *bundleHooks, limit time.Duration) error {
	owed, err := json.Marshal(&bundleHooks{Bundle: h.Bundle, Hooks: &specs.Hooks{Poststop: h.Hooks.Poststop}, Annotations: h.Annotations})
	if err != nil {
		return fmt.Errorf("encode hooks: %w", err)
	}
	rec.Hooks = owed
	if err := l.store.Put(rec); err != nil {
		return fmt.Errorf("record hooks: %w", err)
	}
	state := h.state(rec.Name, specs.StateCreated, rec.Sentry.PID)
	//nolint:staticcheck // Prestart is deprecated in the spec and still in bundles
	for _, set := range []HookSet{h.set("prestart", h.Hooks.Prestart, limit), h.set("createRuntime", h.Hooks.CreateRuntime, limit), h.set("createContainer", h.Hooks.CreateContainer, limit)} {
		if err := set.Run(ctx, state); err != nil {
			return err
		}
	}
	return nil
}

// afterStart runs the hooks of a running application. One that fails is a
// warning in the record.
func afterStart(ctx context.Context, rec *actual.Record, h *bundleHooks, limit time.Duration) {
	h.set("poststart", h.Hooks.Poststart, limit).RunAll(ctx, h.state(rec.Name, specs.StateRunning, rec.Sentry.PID), warnIn(rec))
}

// afterEnd runs the hooks that follow the end of a sandbox that got as far as
// its first ones, once, or after a crash once more. The host policy is asked
// again: it may have changed since the start. It fails if the policy can't be
// read, or ctx ends; the hooks stay on record then.
func (l *Launcher) afterEnd(ctx context.Context, rec *actual.Record) error {
	warn := warnIn(rec)
	if len(rec.Hooks) == 0 {
		return l.dropOldHooks(rec.Name, warn)
	}
	var h bundleHooks
	if err := json.Unmarshal(rec.Hooks, &h); err != nil || h.Hooks == nil {
		warn("poststop hooks were not run: the record of them can't be read: %v", err)
		rec.Hooks = nil
		return nil
	}
	policy, err := l.opts.Policy()
	if err != nil {
		return fmt.Errorf("run poststop hooks: %w", err)
	}
	if err := allowHooks(policy, h.Bundle); err != nil {
		warn("poststop hooks were not run: %v", err)
		rec.Hooks = nil
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("run poststop hooks: %w", cause)
	}
	h.set("poststop", h.Hooks.Poststop, policy.HookTime()).RunAll(ctx, h.state(rec.Name, specs.StateStopped, 0), warn)
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("run poststop hooks: %w", cause)
	}
	rec.Hooks = nil
	return nil
}

// allowHooks says whether the policy lets the hooks of a bundle run as root on the
// host.
func allowHooks(policy *hostpolicy.Policy, bundle string) error {
	if !policy.Root.Hooks {
		return fmt.Errorf("hooks: they run as root on the host, which the host policy (%s) does not allow; remove them, or have the administrator set root.hooks", policy.Source())
	}
	_, err := policy.AllowedRoot(hostpolicy.BundlePath, bundle, false)
	return err
}

// dropOldHooks removes the hooks that an earlier version wrote into a file of their
// own. They are not run: nothing says who wrote that file.
func (l *Launcher) dropOldHooks(name string, warn func(format string, args ...any)) error {
	dir, err := l.store.Dir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for hooks of an earlier version: %w", err)
	}
	defer dir.Close()
	var st unix.Stat_t
	switch err := unix.Fstatat(int(dir.Fd()), oldHooksFile, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return fmt.Errorf("look for hooks of an earlier version: %w", err)
	}
	warn("poststop hooks were not run: %s is of an earlier version, and nothing says who wrote it", oldHooksFile)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil // not ours; it goes with the directory it is in
	}
	return atomicfile.Remove(dir, oldHooksFile)
}

func warnIn(rec *actual.Record) func(format string, args ...any) {
	return func(format string, args ...any) {
		rec.Warnings = append(rec.Warnings, actual.Warning{Reason: actual.WarningHookFailed, Message: printable(fmt.Sprintf(format, args...), 1000)})
	}
}
