// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Argv0 makes sandboxctl this program.
const Argv0 = "sandboxctl-init"

// DefaultTimeout bounds a hook without a timeout.
const DefaultTimeout = 5 * time.Minute

// maxOutput is how much of a hook's output is kept for the error, in bytes.
const maxOutput = 2048

// Passed is reported when the hooks have run.
const Passed = "\x06"

// Config is the configuration of Main.
type Config struct {
	// ReportFD is a pipe's write end. Its end after Passed alone means that the
	// application runs; anything else says why it does not.
	ReportFD int          `json:"reportFD"`
	Hooks    []specs.Hook `json:"hooks"`
	State    specs.State  `json:"state"`
}

// Argv is the command line of Main with the application's own.
func Argv(c *Config, app []string) ([]string, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode startContainer hooks: %w", err)
	}
	return append([]string{Argv0, string(b)}, app...), nil
}

// Main runs the hooks and becomes the application. It returns if that fails:
// 127 if there is no such program, 2 if it is called wrongly, else 1.
func Main(ctx context.Context, argv []string) int {
	var c Config
	if len(argv) < 3 {
		fmt.Fprintf(os.Stderr, "%s: started by sandboxctl inside a sandbox only\n", Argv0)
		return 2
	}
	if err := json.Unmarshal([]byte(argv[1]), &c); err != nil {
		fmt.Fprintf(os.Stderr, "%s: decode configuration: %v\n", Argv0, err)
		return 2
	}
	unix.CloseOnExec(c.ReportFD)
	report := func(s string) {
		// Nobody may be there to read it; the exit code says enough.
		_, _ = unix.Write(c.ReportFD, []byte(s))
	}
	err := runHooks(ctx, &c)
	if err == nil {
		report(Passed)
		err = become(argv[2:])
	}
	report(err.Error())
	if errors.Is(err, exec.ErrNotFound) {
		return 127
	}
	return 1
}

func runHooks(ctx context.Context, c *Config) error {
	state, err := json.Marshal(c.State)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	for i := range c.Hooks {
		// Without an environment of its own it has the application's: this process's.
		if err := Run(ctx, &c.Hooks[i], os.Environ(), state, inGroup); err != nil {
			return fmt.Errorf("error running startContainer hook #%d: %w", i, err)
		}
	}
	return nil
}

func become(app []string) error {
	path, err := exec.LookPath(app[0])
	if err != nil {
		return fmt.Errorf("find application: %w", err)
	}
	return fmt.Errorf("execute %s: %w", path, unix.Exec(path, app, os.Environ()))
}

// Run runs a hook with the state on its stdin. without is its environment if it has
// none of its own. execute runs the command, and ends it when its context is done.
func Run(ctx context.Context, h *specs.Hook, without []string, state []byte, execute func(context.Context, *exec.Cmd) error) error {
	if err := Check(h); err != nil {
		return err
	}
	timeout := Timeout(h)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("killed after %s", timeout))
	defer cancel()
	cmd := exec.Command(h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = environment(h, without)
	cmd.Stdin = bytes.NewReader(state)
	var output clipped
	cmd.Stdout, cmd.Stderr = &output, &output
	err := execute(ctx, cmd)
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", h.Path, context.Cause(ctx))
	}
	return fmt.Errorf("%s: %w, output: %s", h.Path, err, output.String())
}

// inGroup runs a command in a process group of its own: not the one that a terminal
// sends its signals to. What is left of it after a timeout ends with this process, the
// sandbox's init.
func inGroup(ctx context.Context, cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A child of the hook that keeps its output open is not waited for.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	return cmd.Wait()
}

// Check says what is wrong with a hook.
func Check(h *specs.Hook) error {
	if !filepath.IsAbs(h.Path) {
		return fmt.Errorf("path: expected an absolute path, got %q", h.Path)
	}
	if h.Timeout != nil && *h.Timeout <= 0 {
		return fmt.Errorf("timeout: expected more than 0 seconds, got %d", *h.Timeout)
	}
	return nil
}

// environment is that of a hook: its own, or without one what is given. It is
// never nil, which would be that of this process.
func environment(h *specs.Hook, without []string) []string {
	if len(h.Env) > 0 {
		return append([]string{}, h.Env...)
	}
	return append([]string{}, without...)
}

// Timeout is how long a hook may take.
func Timeout(h *specs.Hook) time.Duration {
	if h.Timeout == nil {
		return DefaultTimeout
	}
	return time.Duration(*h.Timeout) * time.Second
}

// clipped keeps the beginning of what a hook writes, for the error. The zero
// value is ready.
type clipped struct{ buf bytes.Buffer }

// Write never fails.
func (o *clipped) Write(p []byte) (int, error) {
	o.buf.Write(p[:min(len(p), maxOutput-o.buf.Len())])
	return len(p), nil
}

func (o *clipped) String() string { return strings.TrimSpace(o.buf.String()) }
