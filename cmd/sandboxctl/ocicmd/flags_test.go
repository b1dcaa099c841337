// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sandboxctl.dev/cmd/sandboxctl/attach"
)

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
	root := New(attach.Streams{}, "v0").Command()
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

// A flag that would change nothing is no success.
func TestUpdateZero(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args, err string
	}{
		{"--memory=0", "--memory: 0 changes nothing"},
		{"--memory=0k", "--memory: 0 changes nothing"},
		{"--memory-swap=0", "--memory-swap: 0"},
		{"--pids-limit=0", "--pids-limit: 0"},
		{"--cpu-quota=0 --cpu-period=1000", "--cpu-quota: 0"},
		{"--cpu-share=0", "--cpu-share: 0"},
		{"--blkio-weight=0", "--blkio-weight: 0"},
		{"--memory=-1 --pids-limit=-1 --cpu-quota=-1", ""},
		{"--cpu-idle=0 --cpu-burst=0", ""},
		{"", ""},
	} {
		var u updateFlags
		fl := pflag.NewFlagSet("update", pflag.ContinueOnError)
		u.add(fl)
		if err := fl.Parse(strings.Fields(c.args)); err != nil {
			t.Fatal(err)
		}
		if _, err := u.resources(fl); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, expected %q", c.args, err, c.err)
		}
	}
}
