// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
)

// hooksFile is what a sandbox keeps of its bundle from before its first hooks
// until its last ones have run: the bundle may be another by then.
const hooksFile = "hooks.json"

// warningHookFailed is the reason of a recorded warning.
const warningHookFailed = "HookFailed"

// bundleHooks are the hooks of a manifest's bundle, which is owned by us and
// which nobody else may write.
type bundleHooks struct {
	Bundle      string            `json:"bundle"`
	Hooks       *specs.Hooks      `json:"hooks"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func (h *bundleHooks) state(name string, status specs.ContainerState, pid int) specs.State {
	return specs.State{Version: specs.Version, ID: name, Status: status, Pid: pid, Bundle: h.Bundle, Annotations: h.Annotations}
}

// set is the hooks of one point. They don't have the score of the daemon, which
// spares it.
func (h *bundleHooks) set(kind string, hooks []specs.Hook, limit time.Duration) HookSet {
	return HookSet{Kind: kind, Hooks: hooks, OOMScore: new(SandboxOOMScore), Limit: limit}
}

// beforeStart runs the hooks that come between the sandbox and its application.
// One that fails fails the start.
func (l *Launcher) beforeStart(ctx context.Context, rec *actual.Record, h *bundleHooks, limit time.Duration) error {
	b, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode hooks: %w", err)
	}
	dir, err := l.store.Dir(rec.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := atomicfile.Write(dir, hooksFile, b, 0o600); err != nil {
		return fmt.Errorf("write hooks: %w", err)
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
// its first ones, once, or after a crash once more. It fails only if ctx ends.
func (l *Launcher) afterEnd(ctx context.Context, rec *actual.Record) error {
	warn := warnIn(rec)
	dir, err := l.store.Dir(rec.Name)
	if err != nil {
		return fmt.Errorf("run poststop hooks: %w", err)
	}
	defer dir.Close()
	h, err := readHooks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var damage *hooksDamage
	if err != nil && !errors.As(err, &damage) {
		// The system refuses now what it may give later: they are owed until then.
		return fmt.Errorf("run poststop hooks: %w", err)
	}
	if err == nil {
		h.set("poststop", h.Hooks.Poststop, l.hookTime()).RunAll(ctx, h.state(rec.Name, specs.StateStopped, 0), warn)
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("run poststop hooks: %w", cause)
		}
		err = atomicfile.Remove(dir, hooksFile)
	}
	if err != nil {
		warn("poststop hooks: %v", err)
	}
	return nil
}

// hookTime is how long the hooks of one point may take now. A policy that can't be
// read is no reason to let them take longer than usual.
func (l *Launcher) hookTime() time.Duration {
	policy, err := l.opts.Policy()
	if err != nil {
		policy = nil
	}
	return policy.HookTime()
}

func readHooks(dir *os.File) (*bundleHooks, error) {
	f, err := openBeneath(int(dir.Fd()), hooksFile, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 2*maxBundleConfig))
	if err != nil {
		return nil, fmt.Errorf("read hooks: %w", err)
	}
	var h bundleHooks
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, &hooksDamage{fmt.Errorf("decode hooks: %w", err)}
	}
	if h.Hooks == nil {
		return nil, &hooksDamage{errors.New("decode hooks: there are none")}
	}
	return &h, nil
}

// hooksDamage says that what was read can't be understood, and never will be.
type hooksDamage struct{ error }

func (e *hooksDamage) Unwrap() error { return e.error }

func warnIn(rec *actual.Record) func(format string, args ...any) {
	return func(format string, args ...any) {
		rec.Warnings = append(rec.Warnings, actual.Warning{Reason: warningHookFailed, Message: printable(fmt.Sprintf(format, args...), 1000)})
	}
}
