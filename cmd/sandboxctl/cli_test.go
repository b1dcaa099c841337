// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/gofer/sandboxlog"
	"sandboxctl.dev/launcher/wire"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const webManifest = `apiVersion: sandboxctl.dev/v1alpha1
kind: Sandbox
metadata:
  name: web
spec:
  root: {host: {}}
  command: [sleep]
`

// cli is the program run in this process, on directories of its own.
type cli struct {
	t                *testing.T
	manifests, state string
	out, err         bytes.Buffer
}

func newCLI(t *testing.T) *cli {
	t.Helper()
	dir := t.TempDir()
	c := &cli{t: t, manifests: filepath.Join(dir, "manifests"), state: filepath.Join(dir, "state")}
	must(t, os.Mkdir(c.manifests, 0o755))
	return c
}

func (c *cli) run(args ...string) int {
	c.out.Reset()
	c.err.Reset()
	a := &app{Host: world.Host{Stdin: strings.NewReader(webManifest), Stdout: &c.out, Stderr: &c.err}}
	return a.run(c.t.Context(), append([]string{"--manifests", c.manifests, "--state", c.state}, args...))
}

func (c *cli) manifest(name string) string {
	c.t.Helper()
	p := filepath.Join(c.t.TempDir(), name+".yaml")
	must(c.t, os.WriteFile(p, []byte(strings.Replace(webManifest, "web", name, 1)), 0o600))
	return p
}

// records makes a state directory with records of names.
func (c *cli) records(names ...string) {
	c.t.Helper()
	s, err := actual.OpenStore(c.state)
	must(c.t, err)
	defer s.Close()
	for _, n := range names {
		must(c.t, s.Claim(n))
		must(c.t, s.Put(&actual.Record{
			Version: actual.RecordVersion, Name: n, UID: "0123456789abcdef0123456789abcdef", Attempt: 1, Generation: 1,
			Phase: actual.PhaseStopped, BootID: "b", CreatedAt: someTime,
			Containers: []actual.Container{{Name: actual.AppName}},
		}))
	}
}

// What a caller in a script relies on: codes, and what is on which stream.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	must(t, os.WriteFile(filepath.Join(c.manifests, "web.yaml"), []byte(webManifest), 0o600))
	same, other := filepath.Join(c.manifests, "web.yaml"), c.manifest("other")
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	must(t, os.WriteFile(broken, []byte("kind: [\n"), 0o600))
	for _, x := range []struct {
		args     string
		code     int
		out, err string // contained; "" is nothing at all
	}{
		{"get", exit.OK, "web", "the daemon is not running"},
		{"get -o name", exit.OK, "web\n", ""},
		{"get nosuch", exit.Failure, "", `no sandbox "nosuch"; there are web`},
		{"plan", exit.OK, "create", "the daemon is not running"},
		{"validate", exit.OK, "1 sandbox is valid", ""},
		{"validate " + broken, exit.Failure, "", "broken.yaml"},
		{"validate -o json " + broken, exit.Failure, "broken.yaml", ""},
		{"validate " + other + "nosuch", exit.Failure, "", "no such file"},
		{"diff -f " + same, exit.OK, "", ""},
		{"diff -f " + other, 1, "+", ""},
		{"diff -f " + broken, 2, "", "broken.yaml"},
		{"diff", 2, "", "expected -f FILE"},
		{"diff --nonsense", exit.Usage, "", "unknown flag"},
		{"logs web", exit.Failure, "", "has `sandboxctl daemon` ever run"},
		{"wait web --for=ready --timeout 1ms", exit.Timeout, "", "timed out after 1ms: web is Pending"},
		{"wait gone --for=delete --timeout 1m", exit.OK, "", ""},
		{"wait web --for=condition=Nonsense", exit.Usage, "", `no condition "Nonsense"`},
		{"wait", exit.Usage, "", "expected a NAME"},
		{"nonsense", exit.Usage, "", `unknown verb "nonsense"`},
		{"vlaidate", exit.Usage, "", `did you mean "validate"?`},
		{"apply web.yaml", exit.Usage, "", "did you mean -f web.yaml?"},
		{"apply web.yaml", exit.Usage, "", "See `sandboxctl apply --help`."},
		{"get web web -o name", exit.OK, "web\n", ""},
		{"get web nosuch", exit.Failure, "", `no sandbox "nosuch"`},
		{"get -l app=none", exit.OK, "", "no sandbox has these labels"},
		{"get -l app=a web", exit.Usage, "", "not both"},
		{"get -l =a", exit.Usage, "", "-l: expected LABEL=VALUE"},
		{"delete -l app=none", exit.Failure, "", "no sandbox has the labels app=none"},
		{"restart -l app=none", exit.Failure, "", "no sandbox has the labels app=none"},
		{"ls -o name", exit.OK, "web\n", ""},
		{"--version", exit.OK, "sandboxctl ", ""},
		{"run -- true", 125, "", "run needs the daemon, which is not running"},
		{"run -it debian sh", 125, "", "-t needs a terminal"},
		{"attach web", exit.Usage, "", "sandboxctl logs -f NAME"},
		{"stop nosuch", exit.Failure, "", `no sandbox "nosuch"`},
		{"stop", exit.Usage, "", "expected a NAME"},
		{"edit nosuch", exit.Failure, "", `no sandbox "nosuch"`},
		{"get -o xml", exit.Usage, "", `got "xml"`},
		{"describe", exit.Usage, "", "expected a NAME"},
		{"plan x", exit.Usage, "", `unexpected argument "x"`},
		{"logs web --since yesterday", exit.Usage, "", `got "yesterday"`},
		{"events --since yesterday", exit.Usage, "", `got "yesterday"`},
		{"kill web -s NOSUCH", exit.Usage, "", `unknown signal "NOSUCH"`},
		{"exec web", exit.Usage, "", "expected NAME -- COMMAND"},
		{"exec web --", exit.Usage, "", "expected a COMMAND"},
		{"exec -t web -- sh", exit.Usage, "", "-t needs a terminal"},
		{"delete", exit.Usage, "", "expected a NAME, -l LABEL=VALUE or -f FILE"},
		{"delete nosuch", exit.Failure, "", "nosuch"},
		{"restart", exit.Usage, "", "expected a NAME"},
		{"apply", exit.Usage, "", "expected -f FILE"},
		{"apply -f -", exit.OK, "sandbox/web unchanged", "note: the daemon is not running"},
		{"version -o xml", exit.Usage, "", `got "xml"`},
		{"", exit.OK, "Usage:", ""},
	} {
		code := c.run(strings.Fields(x.args)...)
		if code != x.code {
			t.Errorf("%s: exit code %d, expected %d\n%s%s", x.args, code, x.code, c.out.String(), c.err.String())
		}
		for stream, want := range map[*bytes.Buffer]string{&c.out: x.out, &c.err: x.err} {
			if got := stream.String(); !strings.Contains(got, want) || (got == "") != (want == "") {
				t.Errorf("%s: %q, expected %q", x.args, got, want)
			}
		}
		if usage := strings.Contains(c.err.String(), "See `sandboxctl"); usage != (x.code == exit.Usage) {
			t.Errorf("%s: the help is pointed at: %v", x.args, usage)
		}
	}
}

// A flag that is not given comes from its variable.
func TestEnvironment(t *testing.T) {
	c := newCLI(t)
	c.records("web")
	run := func(args ...string) (int, string, string) {
		var out, err bytes.Buffer
		a := &app{Host: world.Host{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &err}}
		return a.run(t.Context(), args), out.String(), err.String()
	}
	t.Setenv("SANDBOXCTL_STATE", c.state)
	t.Setenv("SANDBOXCTL_MANIFESTS", c.manifests)
	t.Setenv("SANDBOXCTL_OUTPUT", "name")
	t.Setenv("SANDBOXCTL_HELP", "true")
	if code, out, _ := run("get"); code != 0 || out != "web\n" {
		t.Errorf("%d %q", code, out)
	}
	if code, out, _ := run("get", "-o", "json"); code != 0 || !strings.Contains(out, `"items"`) {
		t.Errorf("the variable wins over the flag: %d %q", code, out)
	}
	if code, out, _ := run("get", "--state", filepath.Join(c.state, "none")); code != 0 || out != "" {
		t.Errorf("the variable wins over the flag: %d %q", code, out)
	}
	if code, out, _ := run(cobra.ShellCompRequestCmd, "get", ""); code != 0 || !strings.HasPrefix(out, "web\n") {
		t.Errorf("completion: %d %q", code, out)
	}
	t.Setenv("SANDBOXCTL_ALLOW_EMPTY", "perhaps")
	if code, _, err := run("daemon"); code != exit.Usage || !strings.Contains(err, "SANDBOXCTL_ALLOW_EMPTY") {
		t.Errorf("%d %q", code, err)
	}
}

// Who is not root is told, and gets no directories of their own without a word.
func TestCheckRoot(t *testing.T) {
	t.Parallel()
	for args, refused := range map[string]bool{
		"apply": true, "get": true, "ls": true, "delete": true, "exec": true, "stop": true, "edit": true, "daemon": true, "events": true, "restart": true,
		"version": false, "validate": false, "doctor": false, "oci create": false, "completion bash": false, "help": false, "run": true, cobra.ShellCompRequestCmd: false,
	} {
		for _, own := range []bool{false, true} {
			a := &app{}
			root := a.rootCommand()
			root.InitDefaultHelpCmd()
			cmd, _, err := root.Find(strings.Fields(args))
			must(t, err)
			a.Manifests, a.State = entry.DefaultManifests, entry.DefaultState
			if own {
				a.State = "/home/me/state"
			}
			err = a.checkRoot(cmd, 1000)
			if (err != nil) != (refused && !own) {
				t.Errorf("%s, own directories %t: %v", args, own, err)
			}
			if err != nil && !strings.Contains(err.Error(), "sudo sandboxctl "+cmd.Name()) {
				t.Errorf("%s: %v", args, err)
			}
			if err := a.checkRoot(cmd, 0); err != nil {
				t.Errorf("%s as root: %v", args, err)
			}
		}
	}
}

func TestCompleteNames(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	complete := func(args ...string) string {
		a := &app{Host: world.Host{State: c.state}}
		cmd := &cobra.Command{}
		names, dir := a.CompleteNames(cmd, args, "")
		if dir != cobra.ShellCompDirectiveNoFileComp {
			t.Errorf("%v: files are offered", args)
		}
		return strings.Join(names, " ")
	}
	if got := complete(); got != "" {
		t.Errorf("without a state directory: %q", got)
	}
	c.records("web", "api", "db")
	// What can't be read hides nothing else.
	must(t, os.WriteFile(filepath.Join(c.state, "sandboxes", "api", "meta.json"), []byte("{"), 0o600))
	if got := complete(); got != "db web" {
		t.Errorf("%q", got)
	}
	if got := complete("web"); got != "" {
		t.Errorf("a second name is offered: %q", got)
	}
	a := &app{Host: world.Host{State: c.state}}
	if got, _ := a.CompleteMore(nil, []string{"web"}, ""); strings.Join(got, " ") != "db" {
		t.Errorf("of a verb with several names: %q", got)
	}
	must(t, os.Chmod(c.state, 0o777)) // others may write it: not believed
	if got := complete(); got != "" {
		t.Errorf("%q", got)
	}
}

// The verb on log files that are there, without a sandbox that runs.
func TestLogs(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	c.records("web", "old")
	if code := c.run("logs", "web"); code != exit.Failure || !strings.Contains(c.err.String(), "has not run yet") {
		t.Errorf("%d %s", code, c.err.String())
	}
	logs := filepath.Join(c.state, "sandboxes", "web", sandboxlog.Dir, "1")
	must(t, os.MkdirAll(logs, 0o700))
	at := someTime.Format("2006-01-02T15:04:05.000000000Z07:00")
	must(t, os.WriteFile(filepath.Join(logs, "app.log"), []byte(at+" stdout F one\n"+at+" stderr F two\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(logs, "sentry.log"), []byte(at+" stderr F boot\n"), 0o600))
	for args, want := range map[string]string{
		"logs web": "one\ntwo\n", "logs web --tail 1": "two\n", "logs web --tail 0": "", "logs web --sentry": "boot\n",
		"logs web --timestamps": at + " one\n" + at + " two\n", "logs web --since " + at: "one\ntwo\n", "logs web --since 1ns": "",
	} {
		if code := c.run(strings.Fields(args)...); code != 0 || c.out.String() != want {
			t.Errorf("%s: %d %q %s, expected %q", args, code, c.out.String(), c.err.String(), want)
		}
	}
	for args, want := range map[string]string{"logs web --previous": "no run before", "logs nosuch": `no sandbox "nosuch"`} {
		if code := c.run(strings.Fields(args)...); code != exit.Failure || !strings.Contains(c.err.String(), want) {
			t.Errorf("%s: %d %s", args, code, c.err.String())
		}
	}
	must(t, os.WriteFile(filepath.Join(c.state, "sandboxes", "old", "meta.json"), []byte("{"), 0o600))
	if code := c.run("logs", "old"); code != exit.Failure || !strings.Contains(c.err.String(), actual.QuarantinedCorrupt) {
		t.Errorf("%d %s", code, c.err.String())
	}
	// Following ends when the caller has had enough, as it should.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := &app{Host: world.Host{Stdout: &c.out, Stderr: &c.err}}
	if code := a.run(ctx, []string{"--state", c.state, "logs", "-f", "web"}); code != 0 {
		t.Errorf("%d %s", code, c.err.String())
	}
}

func TestParseSignal(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]unix.Signal{
		"TERM": unix.SIGTERM, "term": unix.SIGTERM, "SIGTERM": unix.SIGTERM, "sigkill": unix.SIGKILL, "9": unix.SIGKILL, "1": 1, "64": 64, "USR1": unix.SIGUSR1,
	} {
		if got, err := parseSignal(s); err != nil || got != want {
			t.Errorf("%q: %v %v, expected %v", s, got, err, want)
		}
	}
	for _, bad := range []string{"", "0", "-9", "65", "SIG", "NOSUCH", "9 ", "0x9", "SIGSIGTERM"} {
		var e *exit.Error
		if got, err := parseSignal(bad); !errors.As(err, &e) || e.Code != exit.Usage {
			t.Errorf("%q: %v %v", bad, got, err)
		}
	}
}

func TestExecFlags(t *testing.T) {
	t.Parallel()
	base := func() wire.ExecArgs {
		return wire.ExecArgs{
			KUID: 5, KGID: 6, ExtraKGIDs: []uint32{7}, WorkingDirectory: "/app", Envv: []string{"A=1"},
			Capabilities: &wire.TaskCapabilities{EffectiveCaps: 3, PermittedCaps: 3, BoundingCaps: 3},
		}
	}
	for name, c := range map[string]struct {
		f    execFlags
		want string
	}{
		"nothing": {execFlags{}, "5:6 [7] /app [A=1] 3 3 3"},
		"workdir": {execFlags{workdir: "/tmp"}, "5:6 [7] /tmp [A=1] 3 3 3"},
		"env":     {execFlags{env: []string{"B=", "C=x=y"}}, "5:6 [7] /app [A=1 B= C=x=y] 3 3 3"},
		// The groups of the application are not another user's, and only root
		// has capabilities at once.
		"user":  {execFlags{user: "33"}, "33:0 [] /app [A=1] 0 0 3"},
		"group": {execFlags{user: "33:44"}, "33:44 [] /app [A=1] 0 0 3"},
		"root":  {execFlags{user: "0:44"}, "0:44 [] /app [A=1] 3 3 3"},
		"most":  {execFlags{user: "4294967295:4294967295"}, "4294967295:4294967295 [] /app [A=1] 0 0 3"},
	} {
		a := base()
		err := c.f.apply(&a)
		got := fmt.Sprintf("%d:%d %v %s %v %d %d %d", a.KUID, a.KGID, a.ExtraKGIDs, a.WorkingDirectory, a.Envv,
			a.Capabilities.EffectiveCaps, a.Capabilities.PermittedCaps, a.Capabilities.BoundingCaps)
		if err != nil || got != c.want {
			t.Errorf("%s: %s %v, expected %s", name, got, err, c.want)
		}
	}
	for _, bad := range []execFlags{
		{user: "root"},
		{user: ":5"},
		{user: "5:"},
		{user: "5:x"},
		{user: "5:6:7"},
		{user: "-1"},
		{user: "4294967296"},
		{user: " 5"},
		{env: []string{"NOVALUE"}},
		{env: []string{"=x"}},
		{env: []string{""}},
	} {
		a := base()
		var e *exit.Error
		if err := bad.apply(&a); !errors.As(err, &e) || e.Code != exit.Usage {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// -o is completed with what its verb takes.
func TestCompleteOutputs(t *testing.T) {
	t.Parallel()
	for verb, want := range map[string]string{
		"get": "wide json yaml manifest name", "events": "json", "plan": "json yaml", "ps": "json", "version": "json",
	} {
		var out strings.Builder
		a := &app{Host: world.Host{Stdin: strings.NewReader(""), Stdout: &out, Stderr: t.Output()}}
		if code := a.run(t.Context(), []string{cobra.ShellCompNoDescRequestCmd, verb, "-o", ""}); code != 0 {
			t.Errorf("%s: exit code %d", verb, code)
		}
		offered, _, _ := strings.Cut(out.String(), ":")
		if got := strings.Join(strings.Fields(offered), " "); got != want {
			t.Errorf("%s: %q, expected %q", verb, got, want)
		}
	}
}

// Nothing that an error quotes is obeyed by a terminal.
func TestErrorsAreClean(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"\x1b[2J.yaml", "\u009b2J.yaml", "\x07.yaml", "\u202e.yaml"} {
		must(t, os.Symlink("nosuch", filepath.Join(dir, name)))
		for _, args := range [][]string{
			{"validate", filepath.Join(dir, name)},
			{"validate", dir},
			{"apply", "-f", dir},
			{"get", name},
			{"logs", name},
			{name},
			{"--state", filepath.Join(dir, name), "logs", "a"},
			{"--manifests", filepath.Join(dir, name), "validate"},
		} {
			var out, errs bytes.Buffer
			a := &app{Host: world.Host{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}}
			all := append([]string{"--state", filepath.Join(dir, "none"), "--manifests", filepath.Join(dir, "none")}, args...)
			if code := a.run(t.Context(), all); code == 0 {
				t.Errorf("%q succeeds", args)
			}
			for l := range strings.Lines(out.String() + errs.String()) {
				if i := strings.IndexFunc(strings.TrimSuffix(l, "\n"), untrusted.Obeyed); i >= 0 {
					t.Errorf("%q: %q", args, l)
				}
			}
		}
	}
}
