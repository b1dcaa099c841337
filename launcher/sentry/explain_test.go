// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/actual/operation"
)

// Why a command can't be started is said in users' words.
func TestExplainCommand(t *testing.T) {
	t.Parallel()
	const load = "starting sandbox: creating process: failed to load /f/x: "
	for name, c := range map[string]struct {
		said, file, want string
		notFound         bool
	}{
		"not in PATH":          {`starting sandbox: error finding executable "perrl" in PATH [/usr/bin /bin]: no such file or directory`, "", "command not found in the sandbox: perrl (PATH /usr/bin:/bin)", true},
		"no PATH":              {`error finding executable "a b" in PATH []: no such file or directory`, "", "command not found in the sandbox: a b (PATH )", true},
		"not executable":       {`error finding executable "x" in PATH [/bin]: permission denied`, "", "command can't be executed in the sandbox: x (permission denied)", false},
		"no file":              {load + "no such file or directory", "", "command not found in the sandbox: /f/x", true},
		"CRLF":                 {load + "no such file or directory", "#!/bin/sh\r\necho\r\n", `/f/x has Windows line ends (CRLF): its #! line asks for the interpreter "/bin/sh\r"`, true},
		"CRLF and an option":   {load + "no such file or directory", "#! /usr/bin/env python3\r\n", `interpreter "/usr/bin/env python3\r"`, true},
		"interpreter":          {load + "no such file or directory", "#! /opt/py -u\n", "interpreter not found in the sandbox: /opt/py, from the #! line of /f/x", true},
		"one line, no end":     {load + "no such file or directory", "#!/opt/py", "interpreter not found in the sandbox: /opt/py, ", true},
		"loader":               {load + "no such file or directory", "\x7fELF...", "the dynamic loader", true},
		"mode":                 {load + "permission denied", "#!/bin/sh\n", "chmod +x", false},
		"no program":           {load + "exec format error", "echo hi\n", "neither a program for this processor nor a script", false},
		"below a file":         {load + "not a directory", "", "/f/x can't be executed in the sandbox: not a directory", false},
		"something else":       {load + "input/output error", "", "/f/x can't be executed", false},
		"working directory":    {`starting sandbox: creating process: failed to find initial working directory "/w": no such file or directory`, "", "working directory not found in the sandbox: /w", false},
		"made directory":       {`starting sandbox: failed to create process working directory "/v/w": failed to create directory "/v/w": read-only file system`, "", "can't be made: /v/w (read-only file system)", false},
		"not a directory":      {`starting sandbox: failed to create process working directory "/v/f": not a directory`, "", "can't be made: /v/f (not a directory)", false},
		"PATH: disk":           {`error finding executable "x" in PATH [/bin]: input/output error`, "", "command can't be executed in the sandbox: x (input/output error)", false},
		"PATH: descriptors":    {`error finding executable "x" in PATH [/bin]: too many open files`, "", "x (too many open files)", false},
		"PATH: memory":         {`error finding executable "x" in PATH [/bin]: cannot allocate memory`, "", "x (cannot allocate memory)", false},
		"PATH: a file":         {`error finding executable "x" in PATH [/bin]: not a directory`, "", "x (not a directory)", false},
		"PATH: a circle":       {`error finding executable "x" in PATH [/bin]: too many levels of symbolic links`, "", "x (too many levels of symbolic links)", false},
		"directory: disk":      {`starting sandbox: creating process: failed to find initial working directory "/w": input/output error`, "", "working directory not found in the sandbox: /w (input/output error)", false},
		"directory: full":      {`starting sandbox: failed to create process working directory "/v/w": no space left on device`, "", "can't be made: /v/w (no space left on device)", false},
		"directory: a link":    {`starting sandbox: failed to create process working directory "/out": failed to create directory "/out": file exists`, "", "can't be made: /out (file exists)", false},
		"directory: of /proc":  {`starting sandbox: failed to create process working directory "/proc/self/fd/7": failed to create directory "/proc/self/fd/7": invalid argument`, "", "/proc/self/fd/7 (invalid argument)", false},
		"none of these":        {"starting sandbox: creating process: it rains", "", "the application can't be started: it rains", false},
		"escapes in a script":  {load + "no such file or directory", "#!/\x1b[2Jx\n", "interpreter not found in the sandbox: / [2Jx", true},
		"too many processes":   {"try again", "", "its user has as many as the limit NPROC allows", false},
		"too many, at a start": {"starting sandbox: creating process: try again", "", "no process can be started in the sandbox", false},
		"no such limit":        {load + "please try again", "", "/f/x can't be executed in the sandbox: please try again", false},
	} {
		err := ExplainCommand(fmt.Errorf("start: %w", &RemoteError{Message: c.said}), func(p string) []byte {
			if p != "/f/x" || c.file == "" {
				return nil
			}
			return []byte(c.file)
		})
		e, ok := errors.AsType[*CommandError](err)
		if !ok || !strings.Contains(e.Error(), c.want) || e.NotFound != c.notFound {
			t.Errorf("%s: %v", name, err)
		}
		// What is not known may come right by itself.
		unknown := slices.Contains([]string{
			"none of these", "something else", "no such limit", "too many processes", "too many, at a start",
			"PATH: disk", "PATH: descriptors", "PATH: memory", "directory: disk", "directory: full",
		}, name)
		if operation.PreconditionFailed(err) == unknown {
			t.Errorf("%s: precondition failed: %v", name, !unknown)
		}
		if strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%s: %q", name, err)
		}
	}
	if other := errors.New("other"); ExplainCommand(other, nil) != other {
		t.Error("another error is not left as it is")
	}
}
