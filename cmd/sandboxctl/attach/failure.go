// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"context"
	"errors"
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/fate"
	"sandboxctl.dev/launcher/sentry"
)

// Exit codes for a command that did not start, as shells have them.
const (
	ExitCannotRun = 126
	ExitNotFound  = 127
)

// Explain says why a command could not be started, or what became of it, and gives
// the exit code a shell would.
func (c *Command) Explain(ctx context.Context, err error) error {
	if errors.Is(err, sentry.ErrClosed) {
		return c.sandboxEnded(ctx)
	}
	if !c.OCI {
		err = c.Control.App().ExplainCommand(ctx, err)
	}
	return CommandError(c.Args.Argv[0], err)
}

// sandboxEnded says why the sandbox ended under a command: as its status does.
func (c *Command) sandboxEnded(ctx context.Context) error {
	var end *actual.Exit
	if c.Record != nil {
		end = fate.Of(ctx, c.Store, c.Record)
	}
	switch {
	case end == nil && c.OCI: // `describe` does not know its containers
		return errors.New("the sandbox ended while the command was running")
	case end == nil:
		return fmt.Errorf("the sandbox ended while the command was running; see `sandboxctl describe %s`", c.Name)
	case end.Reason == actual.ReasonOOMKilled:
		// A command that the kernel kills has this exit code too.
		return &exit.Error{Code: end.Code, Err: fmt.Errorf("out of memory, the sandbox ended while the command was running (%s): %s", end.Reason, end.Message)}
	}
	why := end.Reason
	if end.Message != "" {
		why += ": " + show.Clean(end.Message)
	}
	return fmt.Errorf("the sandbox ended while the command was running: %s", why)
}

// CommandError gives an error the exit code of a command that can't be run.
func CommandError(command string, err error) error {
	if e, ok := errors.AsType[*sentry.CommandError](err); ok {
		code := ExitCannotRun
		if e.NotFound {
			code = ExitNotFound
		}
		return &exit.Error{Code: code, Err: e}
	}
	var remote *sentry.RemoteError
	if !errors.As(err, &remote) {
		return err
	}
	code := ExitCannotRun
	if remote.NotFound() {
		code = ExitNotFound
	}
	return &exit.Error{Code: code, Err: fmt.Errorf("exec %s: %s", command, show.Clean(remote.Message))}
}
