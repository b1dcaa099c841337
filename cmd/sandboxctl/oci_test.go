// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
)

// runtimeRun is the OCI runtime on a state directory of its own.
func runtimeRun(t *testing.T, args ...string) (code int, errors string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(binDir, "sandboxctl"), append([]string{ocicmd.Verb, "--root", filepath.Join(t.TempDir(), "r"), "--sentry", "/bin/true"}, args...)...)
	var buf bytes.Buffer
	cmd.Stderr = &buf
	return exitCode(cmd.Run()), buf.String()
}

// Clients of runc know its exit codes and read why from its log.
func TestRuntimeErrors(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		args string
		code int
		want string
	}{
		{"state", exit.Failure, "expected ID, got 0 arguments"},
		{"state a b", exit.Failure, "expected ID, got 2 arguments"},
		{"state --bogus a", exit.Failure, "unknown flag: --bogus"},
		{"state a", exit.Failure, "container does not exist: a"},
		{"bogus", exit.Failure, `unknown verb "bogus"`},
		{"kill a BOGUS", exit.Failure, `unknown signal "BOGUS"`},
		{"kill a -1", exit.Failure, "unknown shorthand flag"},
		{"kill a 0", exit.Failure, "container does not exist: a"},
		{"events --interval 0s a", exit.Failure, "--interval: expected more than 0"},
		{"list --format xml", exit.Failure, "--format: expected table or json"},
		{"run --bundle /nosuch a", exit.Failure, "no such file or directory"},
		{"update --memory lots a", exit.Failure, "--memory: expected an amount"},
		{"exec", ocicmd.ExitExec, "expected ID COMMAND"},
		{"exec a true", ocicmd.ExitExec, "container does not exist: a"},
		{"exec --bogus a true", ocicmd.ExitExec, "unknown flag: --bogus"},
		{"exec --process /nosuch a", ocicmd.ExitExec, "no such file or directory"},
		{"--log-format xml list", exit.Failure, `--log-format: expected text or json, got "xml"`},
	} {
		log := filepath.Join(t.TempDir(), "log")
		args := append([]string{"--log", log, "--log-format", "json"}, strings.Fields(x.args)...)
		if code, said := runtimeRun(t, args...); code != x.code || !strings.Contains(said, x.want) {
			t.Errorf("%s: %d %q, expected %d %q", x.args, code, said, x.code, x.want)
		}
		if strings.Contains(x.args, "--log-format") {
			continue
		}
		b, err := os.ReadFile(log)
		var entry struct{ Level, Msg, Time string }
		if err != nil || bytes.Count(b, []byte("\n")) != 1 || json.Unmarshal(b, &entry) != nil || entry.Level != "error" || !strings.Contains(entry.Msg, x.want) || entry.Time == "" {
			t.Errorf("%s: the log is %q, %v", x.args, b, err)
		}
	}
	// Without a file the log is standard error.
	if code, said := runtimeRun(t, "--log-format", "json", "state", "a"); code != exit.Failure || !json.Valid([]byte(said)) {
		t.Errorf("%d %q", code, said)
	}
	// A log that can't be written hides nothing.
	if code, said := runtimeRun(t, "--log", "/nosuch/log", "state", "a"); code != exit.Failure || !strings.Contains(said, "open log: ") || !strings.Contains(said, "does not exist: a") {
		t.Errorf("%d %q", code, said)
	}
}

func TestRuntimeVersion(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	for _, flag := range []string{"--version", "-v"} {
		if code := c.run(ocicmd.Verb, flag); code != 0 || !strings.HasPrefix(c.out.String(), "sandboxctl-oci version ") || !strings.Contains(c.out.String(), "\nspec: 1.") {
			t.Errorf("%s: %d %q", flag, code, c.out.String())
		}
	}
}
