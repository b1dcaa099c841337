// SPDX-License-Identifier: Apache-2.0

package hooks

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
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// oldHooksFile is where versions before 3 of the record kept the poststop hooks.
// They are in the record now, whose checksum tells what this program wrote from
// what somebody else put there.
const oldHooksFile = "hooks.json"

// Warn is told of hooks that fail and stop nothing.
type Warn = func(format string, args ...any)

// set is the hooks of one point. They don't have the score of the daemon, which
// spares it.
func set(h *setup.Hooks, kind string, list []specs.Hook, limit time.Duration) Set {
	return Set{Kind: kind, Hooks: list, Env: environment(h, kind), OOMScore: new(proc.SandboxOOMScore), Limit: limit}
}

// environment is that of hooks without one of their own. Those of the container
// have the application's, as with runc. Those of the runtime have the search path
// of the daemon and nothing else of it.
func environment(h *setup.Hooks, kind string) []string {
	if kind == "createContainer" {
		return h.Env
	}
	if path := os.Getenv("PATH"); path != "" {
		return []string{"PATH=" + path}
	}
	return []string{setup.DefaultPath}
}

// Owed is what has to be on record before the first hook runs: the poststop hooks. The
// bundle may be another one when the sandbox ends.
func Owed(h *setup.Hooks) ([]byte, error) {
	owed, err := json.Marshal(&setup.Hooks{Bundle: h.Bundle, Hooks: &specs.Hooks{Poststop: h.Hooks.Poststop}, Annotations: h.Annotations})
	if err != nil {
		return nil, fmt.Errorf("encode hooks: %w", err)
	}
	return owed, nil
}

// BeforeStart runs the hooks that come between the sandbox and its application. One
// that fails fails the start.
func BeforeStart(ctx context.Context, name string, pid int, h *setup.Hooks, limit time.Duration) error {
	state := h.State(name, specs.StateCreated, pid)
	//nolint:staticcheck // Prestart is deprecated in the spec and still in bundles
	for _, s := range []Set{set(h, "prestart", h.Hooks.Prestart, limit), set(h, "createRuntime", h.Hooks.CreateRuntime, limit), set(h, "createContainer", h.Hooks.CreateContainer, limit)} {
		if err := s.Run(ctx, state); err != nil {
			return err
		}
	}
	return nil
}

// AfterStart runs the hooks of a running application. One that fails is a warning.
func AfterStart(ctx context.Context, name string, pid int, h *setup.Hooks, limit time.Duration, warn Warn) {
	set(h, "poststart", h.Hooks.Poststart, limit).RunAll(ctx, h.State(name, specs.StateRunning, pid), warn)
}

// AfterEnd runs the hooks that a sandbox owes at its end. The host policy is asked
// again: it may have changed since the start. It fails if the policy can't be read, or
// ctx ends; the hooks are still owed then.
func AfterEnd(ctx context.Context, name string, owed []byte, policyOf func() (*hostpolicy.Policy, error), warn Warn) error {
	var h setup.Hooks
	if err := json.Unmarshal(owed, &h); err != nil || h.Hooks == nil {
		warn("poststop hooks were not run: the record of them can't be read: %v", err)
		return nil
	}
	policy, err := policyOf()
	if err != nil {
		return fmt.Errorf("run poststop hooks: %w", err)
	}
	if err := setup.AllowHooks(policy, h.Bundle); err != nil {
		warn("poststop hooks were not run: %v", err)
		return nil
	}
	if context.Cause(ctx) == nil {
		set(&h, "poststop", h.Hooks.Poststop, policy.HookTime()).RunAll(ctx, h.State(name, specs.StateStopped, 0), warn)
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("run poststop hooks: %w", cause)
	}
	return nil
}

// DropOld removes the hooks that an earlier version wrote into a file of their
// own. They are not run: nothing says who wrote that file.
func DropOld(store *actual.Store, name string, warn Warn) error {
	dir, err := store.Dir(name)
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
