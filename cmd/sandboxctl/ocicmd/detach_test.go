// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/cmd/sandboxctl/exit"
)

// sampleOf sets a flag to something that is not its default.
func sampleOf(t *testing.T, f *pflag.Flag) {
	t.Helper()
	value := map[string]string{"string": "sample of " + f.Name, "bool": "true", "int": "17", "uintSlice": "17,18", "stringArray": "A=" + f.Name}[f.Value.Type()]
	if value == "" {
		t.Fatalf("--%s is a %s, of which this test has no sample", f.Name, f.Value.Type())
	}
	if err := f.Value.Set(value); err != nil || f.Value.String() == f.DefValue {
		t.Fatalf("--%s %s is as if it was not given: %v", f.Name, value, err)
	}
}

// execVerb is exec below oci, with the flags of both.
func execVerb() (v *Verbs, e *execFlags, cmd *cobra.Command) {
	v, e = New(attach.Streams{}, "v0"), &execFlags{}
	root, cmd := v.Command(), v.execWith(e)
	root.AddCommand(cmd)
	return v, e, cmd
}

// flagsOf are the flags that one can give exec, also those before the verb, without
// those that do nothing.
func flagsOf(cmd *cobra.Command) (out []*pflag.Flag) {
	add := func(f *pflag.Flag) {
		if !strings.HasPrefix(f.Usage, compatible) && f.Name != "help" && f.Name != "version" {
			out = append(out, f)
		}
	}
	cmd.LocalFlags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	return out
}

// lost are the flags that a detached command does not get: of a command line where
// every flag is given, those that are not what they were after they have been handed
// over. more adds flags to both sides.
func lost(t *testing.T, more func(*pflag.FlagSet)) (names []string) {
	t.Helper()
	v, e, cmd := execVerb()
	more(cmd.Flags())
	given := flagsOf(cmd)
	for _, f := range given {
		sampleOf(t, f)
	}
	file, err := (&handOver{Flags: v.flags, Exec: *e, Process: process{&specs.Process{Args: []string{"true"}}}}).file()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	v2, e2, cmd2 := execVerb()
	more(cmd2.Flags())
	h, err := decodeHandOver(file)
	if err != nil {
		t.Fatal(err)
	}
	v2.flags, *e2 = h.Flags, h.Exec
	for _, f := range given {
		if got := cmd2.Flag(f.Name); got.Value.String() != f.Value.String() {
			names = append(names, f.Name)
		}
	}
	return names
}

// Every flag of exec, and every one before it, is there for a detached command: one
// that is forgotten would be lost in silence. The test finds flags by itself, and
// fails for one that is kept anywhere but in what is handed over.
func TestExecHandsOver(t *testing.T) {
	t.Parallel()
	if names := lost(t, func(*pflag.FlagSet) {}); len(names) > 0 {
		t.Errorf("lost: %v", names)
	}
	_, _, cmd := execVerb()
	var names []string
	for _, f := range flagsOf(cmd) {
		names = append(names, f.Name)
	}
	for _, f := range []string{"cwd", "user", "env", "cap", "additional-gids", "tty", "no-new-privs", "ignore-paused", "console-socket", "pid-file", "preserve-fds", "process", "root", "sentry", "gofer", "debug", "log", "log-format"} {
		if !slices.Contains(names, f) {
			t.Errorf("--%s is not looked at: %v", f, names)
		}
	}
	// A flag that is bound to something else is found, whatever its type.
	got := lost(t, func(fl *pflag.FlagSet) {
		fl.String("new-string", "", "x")
		fl.Bool("new-bool", false, "x")
		fl.Int("new-int", 0, "x")
		fl.StringArray("new-list", nil, "x")
	})
	if !slices.Equal(got, []string{"new-bool", "new-int", "new-list", "new-string"}) {
		t.Errorf("flags that are handed over to nobody: %v", got)
	}
}

// Nothing of the process that was described is lost, as it is described once.
func TestExecHandsOverProcess(t *testing.T) {
	t.Parallel()
	soft := uint64(3)
	want := &handOver{ID: "web", Process: process{&specs.Process{
		Terminal: true, ConsoleSize: &specs.Box{Height: 5, Width: 6}, User: specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3, 4}, Umask: new(uint32)},
		Args: []string{"sh", "-c", "--", "--detach", "", "é ✓"}, Env: []string{"A=b", "B=c d\n"}, Cwd: "/x",
		Capabilities: &specs.LinuxCapabilities{Ambient: []string{"CAP_KILL"}}, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: soft}},
		NoNewPrivileges: true, OOMScoreAdj: new(int),
	}}}
	file, err := want.file()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got, err := decodeHandOver(file); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v became %+v: %v", want, got, err)
	}
}

// A path may have bytes that are no text; nothing else than it was given is opened.
func TestExecHandsOverBytes(t *testing.T) {
	t.Parallel()
	want := &handOver{ID: "web", Process: process{&specs.Process{Args: []string{"true"}}}}
	for _, field := range []*string{
		&want.Flags.Root, &want.Flags.Log, &want.Flags.Programs.Sentry, &want.Flags.Programs.Gofer, &want.Exec.PIDFile, &want.Exec.Console, &want.Exec.Process,
	} {
		*field = "/run/caf\xe9\xff\x00\u2028<&>"
	}
	file, err := want.file()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(0); err == nil {
		t.Error("what was handed over can be changed")
	}
	if got, err := decodeHandOver(file); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v became %+v: %v", want, got, err)
	}
}

// What is for the program itself says so when somebody else calls it.
func TestAttendAlone(t *testing.T) {
	t.Parallel()
	encoded := func(p *specs.Process) string {
		f, err := (&handOver{ID: "web", Process: process{p}}).file()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	whole := encoded(&specs.Process{Args: []string{"true"}})
	for name, given := range map[string]string{
		"nothing": "", "empty JSON": "{}", "null": "null", "text": "hello\n", "cut off": whole[:len(whole)-1],
		"no process": encoded(nil), "no command": encoded(&specs.Process{Cwd: "/"}), "empty command": encoded(&specs.Process{Args: []string{}}),
	} {
		_, err := decodeHandOver(strings.NewReader(given))
		e, ok := errors.AsType[*exit.Error](err)
		if !ok || e.Code != exit.Usage || !strings.Contains(err.Error(), "for the program itself") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
