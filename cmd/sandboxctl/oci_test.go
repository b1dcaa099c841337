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

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// runtimeRun is the OCI runtime on a state directory of its own.
func runtimeRun(t *testing.T, args ...string) (code int, errors string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(binDir, "sandboxctl"), append([]string{ociVerb, "--root", filepath.Join(t.TempDir(), "r"), "--sentry", "/bin/true"}, args...)...)
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
		{"state", exitFailure, "expected ID, got 0 arguments"},
		{"state a b", exitFailure, "expected ID, got 2 arguments"},
		{"state --bogus a", exitFailure, "unknown flag: --bogus"},
		{"state a", exitFailure, "container does not exist: a"},
		{"bogus", exitFailure, `unknown verb "bogus"`},
		{"kill a BOGUS", exitFailure, `unknown signal "BOGUS"`},
		{"kill a -1", exitFailure, "unknown shorthand flag"},
		{"kill a 0", exitFailure, "container does not exist: a"},
		{"events --interval 0s a", exitFailure, "--interval: expected more than 0"},
		{"list --format xml", exitFailure, "--format: expected table or json"},
		{"run --bundle /nosuch a", exitFailure, "no such file or directory"},
		{"update --memory lots a", exitFailure, "--memory: expected an amount"},
		{"exec", exitExec, "expected ID COMMAND"},
		{"exec a true", exitExec, "container does not exist: a"},
		{"exec --bogus a true", exitExec, "unknown flag: --bogus"},
		{"exec --process /nosuch a", exitExec, "no such file or directory"},
		{"--log-format xml list", exitFailure, `--log-format: expected text or json, got "xml"`},
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
	if code, said := runtimeRun(t, "--log-format", "json", "state", "a"); code != exitFailure || !json.Valid([]byte(said)) {
		t.Errorf("%d %q", code, said)
	}
	// A log that can't be written hides nothing.
	if code, said := runtimeRun(t, "--log", "/nosuch/log", "state", "a"); code != exitFailure || !strings.Contains(said, "open log: ") || !strings.Contains(said, "does not exist: a") {
		t.Errorf("%d %q", code, said)
	}
}

func TestRuntimeVersion(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	for _, flag := range []string{"--version", "-v"} {
		if code := c.run(ociVerb, flag); code != 0 || !strings.HasPrefix(c.out.String(), "sandboxctl-oci version ") || !strings.Contains(c.out.String(), "\nspec: 1.") {
			t.Errorf("%s: %d %q", flag, code, c.out.String())
		}
	}
}

// runcFlags are those of runc 1.1 that clients may give, of each verb.
var runcFlags = map[string]string{
	"":           "debug log log-format root criu systemd-cgroup rootless version",
	"create":     "bundle console-socket pid-file no-pivot no-new-keyring preserve-fds",
	"start":      "",
	"run":        "bundle console-socket detach keep pid-file no-subreaper no-pivot no-new-keyring preserve-fds",
	"exec":       "console-socket cwd env tty user additional-gids process detach pid-file process-label apparmor no-new-privs cap preserve-fds ignore-paused",
	"kill":       "all",
	"delete":     "force",
	"events":     "interval stats",
	"ps":         "format",
	"list":       "format quiet",
	"state":      "",
	"pause":      "",
	"resume":     "",
	"features":   "",
	"spec":       "bundle",
	"update":     "resources blkio-weight cpu-period cpu-quota cpu-share cpu-rt-period cpu-rt-runtime cpuset-cpus cpuset-mems memory memory-reservation memory-swap pids-limit",
	"checkpoint": "image-path work-path leave-running tcp-established ext-unix-sk shell-job status-fd file-locks manage-cgroups-mode empty-ns auto-dedup",
	"restore": "console-socket image-path work-path tcp-established ext-unix-sk shell-job file-locks manage-cgroups-mode bundle detach pid-file no-subreaper no-pivot " +
		"empty-ns auto-dedup lsm-profile lsm-mount-context",
}

func TestRuntimeFlags(t *testing.T) {
	t.Parallel()
	a := &app{}
	root := a.ociCommand()
	root.InitDefaultVersionFlag()
	verbs := map[string]*cobra.Command{"": root}
	for _, cmd := range root.Commands() {
		verbs[cmd.Name()] = cmd
	}
	for verb, names := range runcFlags {
		cmd, ok := verbs[verb]
		if !ok {
			t.Errorf("there is no %s", verb)
			continue
		}
		for n := range strings.FieldsSeq(names) {
			if f := cmd.Flag(n); f == nil || f.Hidden {
				t.Errorf("%s has no --%s", verb, n)
			}
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" && !f.Hidden {
				t.Errorf("%s --%s says nothing", verb, f.Name)
			}
		})
	}
}

func TestParseBytes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"-1": -1, "0": 0, "4096": 4096, "4k": 4096, "64m": 64 << 20, "64M": 64 << 20, "64MB": 64 << 20, "256Mi": 256 << 20, "2GiB": 2 << 30, "1t": 1 << 40,
	} {
		if n, err := parseBytes(in); err != nil || n != want {
			t.Errorf("%s: %d, %v", in, n, err)
		}
	}
	for _, in := range []string{"", "-2", "lots", "m", "1mm", "1.5g", "9223372036854775807k", "8388608t", "0x10", "1 m"} {
		if n, err := parseBytes(in); err == nil {
			t.Errorf("%q: %d", in, n)
		}
	}
}
