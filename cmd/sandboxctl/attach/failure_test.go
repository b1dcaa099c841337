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
