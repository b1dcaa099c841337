// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/launcher/sentry"
)

func TestExecCodes(t *testing.T) {
	t.Parallel()
	plain := errors.New("connection lost")
	if err := CommandError("sh", plain); err != plain {
		t.Errorf("%v", err)
	}
	for msg, code := range map[string]int{
		"no such file or directory": ExitNotFound, `executable "x" not found in $PATH`: ExitNotFound, "permission denied": ExitCannotRun, "": ExitCannotRun,
	} {
		err := CommandError("sh", fmt.Errorf("more: %w", &sentry.RemoteError{Message: msg + "\x1b[2J"}))
		var e *exit.Error
		if !errors.As(err, &e) || e.Code != code || strings.Contains(e.Error(), "\x1b") || !strings.Contains(e.Error(), "exec sh") {
			t.Errorf("%q: %v", msg, err)
		}
	}
}

// Advice is for those who can follow it: no verb outside `oci` knows the containers of
// OCI clients.
func TestEndedAdvice(t *testing.T) {
	t.Parallel()
	for _, oci := range []bool{true, false} {
		c := &Command{Name: "web", OCI: oci}
		err := c.Explain(t.Context(), fmt.Errorf("wait: %w", sentry.ErrClosed))
		if !strings.Contains(err.Error(), "the sandbox ended while the command was running") || strings.Contains(err.Error(), "sandboxctl describe web") == oci {
			t.Errorf("OCI %t: %v", oci, err)
		}
	}
}
