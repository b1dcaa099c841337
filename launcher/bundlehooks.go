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
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/hooks"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// oldHooksFile is where versions before 3 of the record kept the poststop hooks.
// They are in the record now, whose checksum tells what this program wrote from
// what somebody else put there.
const oldHooksFile = "hooks.json"

// set is the hooks of one point. They don't have the score of the daemon, which
// spares it.
func hookSet(h *setup.Hooks, kind string, list []specs.Hook, limit time.Duration) hooks.Set {
	return hooks.Set{Kind: kind, Hooks: list, Env: hookEnv(h, kind), OOMScore: new(proc.SandboxOOMScore), Limit: limit}
}

// environment is that of hooks without one of their own. Those of the container
// have the application's, as with runc. Those of the runtime have the search path
// of the daemon and nothing else of it.
func hookEnv(h *setup.Hooks, kind string) []string {
	if kind == "createContainer" {
		return h.Env
	}
	if path := os.Getenv("PATH"); path != "" {
		return []string{"PATH=" + path}
	}
	return []string{setup.DefaultPath}
}

// beforeStart runs the hooks that come between the sandbox and its application.
// One that fails fails the start. The poststop hooks are on record before: the
// bundle may be another one when the sandbox ends.
func (l *Launcher) beforeStart(ctx context.Context, rec *actual.Record, h *setup.Hooks, limit time.Duration) error {
	owed, err := json.Marshal(&setup.Hooks{Bundle: h.Bundle, Hooks: &specs.Hooks{Poststop: h.Hooks.Poststop}, Annotations: h.Annotations})
	if err != nil {
		return fmt.Errorf("encode hooks: %w", err)
	}
	rec.App().Hooks = owed
	if err := l.store.Put(rec); err != nil {
		return fmt.Errorf("record hooks: %w", err)
	}
	state := h.State(rec.Name, specs.StateCreated, rec.Sentry.PID)
	//nolint:staticcheck // Prestart is deprecated in the spec and still in bundles
	for _, set := range []hooks.Set{hookSet(h, "prestart", h.Hooks.Prestart, limit), hookSet(h, "createRuntime", h.Hooks.CreateRuntime, limit), hookSet(h, "createContainer", h.Hooks.CreateContainer, limit)} {
		if err := set.Run(ctx, state); err != nil {
			return err
		}
	}
	return nil
}

// afterStart runs the hooks of a running application. One that fails is a
// warning in the record.
func afterStart(ctx context.Context, rec *actual.Record, h *setup.Hooks, limit time.Duration) {
	hookSet(h, "poststart", h.Hooks.Poststart, limit).RunAll(ctx, h.State(rec.Name, specs.StateRunning, rec.Sentry.PID), warnIn(rec))
}

// afterEnd runs the hooks that follow the end of a sandbox that got as far as
// its first ones, once, or after a crash once more. The host policy is asked
// again: it may have changed since the start. It fails if the policy can't be
// read, or ctx ends; the hooks stay on record then.
func (l *Launcher) afterEnd(ctx context.Context, rec *actual.Record) error {
	warn := warnIn(rec)
	if len(rec.App().Hooks) == 0 {
		return l.dropOldHooks(rec.Name, warn)
	}
	var h setup.Hooks
	if err := json.Unmarshal(rec.App().Hooks, &h); err != nil || h.Hooks == nil {
		warn("poststop hooks were not run: the record of them can't be read: %v", err)
		rec.App().Hooks = nil
		return nil
	}
	policy, err := l.opts.Policy()
	if err != nil {
		return fmt.Errorf("run poststop hooks: %w", err)
	}
	if err := setup.AllowHooks(policy, h.Bundle); err != nil {
		warn("poststop hooks were not run: %v", err)
		rec.App().Hooks = nil
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("run poststop hooks: %w", cause)
	}
	hookSet(&h, "poststop", h.Hooks.Poststop, policy.HookTime()).RunAll(ctx, h.State(rec.Name, specs.StateStopped, 0), warn)
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("run poststop hooks: %w", cause)
	}
	rec.App().Hooks = nil
	return nil
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
		rec.Warnings = append(rec.Warnings, actual.Warning{Reason: actual.WarningHookFailed, Message: untrusted.Line(fmt.Sprintf(format, args...), 1000)})
	}
}
