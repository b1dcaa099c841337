// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/gofer/sandboxlog"
	"sandboxctl.dev/launcher/wire"
	"sandboxctl.dev/reconcile"
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
	a := &app{stdin: strings.NewReader(webManifest), stdout: &c.out, stderr: &c.err}
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
		{"validate", exit.OK, "1 sandboxes are valid", ""},
		{"validate " + broken, exit.Failure, "", "broken.yaml"},
		{"validate -o json " + broken, exit.Failure, "broken.yaml", ""},
		{"validate " + other + "nosuch", exit.Failure, "", "no such file"},
		{"diff -f " + same, exit.OK, "", ""},
		{"diff -f " + other, exitDiffers, "+", ""},
		{"diff -f " + broken, exitDiffError, "", "broken.yaml"},
		{"diff", exitDiffError, "", "expected -f FILE"},
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
		{"run web", exit.Usage, "", "sandboxctl apply -f FILE"},
		{"run -it debian sh", exit.Usage, "", "oci run"},
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
		a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &err}
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
		"version": false, "validate": false, "doctor": false, "oci create": false, "completion bash": false, "help": false, "run": false, cobra.ShellCompRequestCmd: false,
	} {
		for _, own := range []bool{false, true} {
			a := &app{}
			root := a.rootCommand()
			root.InitDefaultHelpCmd()
			cmd, _, err := root.Find(strings.Fields(args))
			must(t, err)
			a.manifests, a.state = defaultManifests, defaultState
			if own {
				a.state = "/home/me/state"
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
		a := &app{state: c.state}
		cmd := &cobra.Command{}
		names, dir := a.completeNames(cmd, args, "")
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
	a := &app{state: c.state}
	if got, _ := a.completeMore(nil, []string{"web"}, ""); strings.Join(got, " ") != "db" {
		t.Errorf("of a verb with several names: %q", got)
	}
	must(t, os.Chmod(c.state, 0o777)) // others may write it: not believed
	if got := complete(); got != "" {
		t.Errorf("%q", got)
	}
}

func TestSinceTime(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Time{
		"": {}, "0": someTime, "5m": someTime.Add(-5 * time.Minute), "1h30m0.5s": someTime.Add(-90*time.Minute - 500*time.Millisecond),
		"2026-01-02T03:04:05Z":           time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02T03:04:05.000000006Z": someTime,
		"2026-01-02T05:04:05+02:00":      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"1d":                             someTime.Add(-24 * time.Hour),
		"1.5d":                           someTime.Add(-36 * time.Hour),
		"1w2d3h":                         someTime.Add(-(9*24 + 3) * time.Hour),
		"2026-01-02":                     time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
		"2026-01-02 03:04":               time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC),
		"2026-01-02 03:04:05":            time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02T03:04":               time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC),
		"12:00":                          time.Date(someTime.Year(), someTime.Month(), someTime.Day(), 12, 0, 0, 0, time.UTC),
	} {
		if got, err := sinceTime(s, someTime); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v %v, expected %v", s, got, err, want)
		}
	}
	for _, bad := range []string{"5", "-5m", "5 m", "yesterday", "-1d", "d", "xd", "1d2w", "1dx", "2026-13-02", "2026-01-02 25:00", "99999999d"} {
		var e *exit.Error
		if got, err := sinceTime(bad, someTime); !errors.As(err, &e) || e.Code != exit.Usage {
			t.Errorf("%q: %v %v", bad, got, err)
		}
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
	a := &app{stdout: &c.out, stderr: &c.err}
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

func TestNoSuch(t *testing.T) {
	t.Parallel()
	w := &world{}
	if got := w.noSuch("x").Error(); got != `no sandbox "x"; there are none` {
		t.Error(got)
	}
	for n := range strings.FieldsSeq("a b c d e f g h i") {
		w.statuses = append(w.statuses, reconcile.Status{Name: n})
		if got := w.noSuch("x").Error(); n == "b" && got != `no sandbox "x"; there are a, b` || n == "i" && !strings.Contains(got, "see `sandboxctl get`") {
			t.Error(got)
		}
	}
	if s := w.status("c"); s == nil || s.Name != "c" || w.status("x") != nil {
		t.Errorf("%v", s)
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, f := range []string{"b.yaml", "a.yml", "sub/c.json", "sub/d.txt", ".hidden.yaml", ".git/e.yaml", "f.yaml~"} {
		p := filepath.Join(dir, f)
		must(t, os.MkdirAll(filepath.Dir(p), 0o700))
		must(t, os.WriteFile(p, nil, 0o600))
	}
	ins, err := expand(dir)
	var files []string
	for _, in := range ins {
		files = append(files, strings.TrimPrefix(in.path, dir+"/"))
	}
	if err != nil || !slices.Equal(files, []string{"a.yml", "b.yaml", "sub/c.json"}) {
		t.Errorf("%v %v", files, err)
	}
	for _, one := range []string{"-", filepath.Join(dir, "sub/d.txt"), filepath.Join(dir, ".hidden.yaml")} {
		if files, err := expand(one); err != nil || !slices.Equal(files, []input{{path: one}}) {
			t.Errorf("%s: %v %v", one, files, err)
		}
	}
	// A directory is what is in it also when its own name begins with a dot.
	if files, err := expand(filepath.Join(dir, ".git")); err != nil || len(files) != 1 {
		t.Errorf("%v %v", files, err)
	}
	if _, err := expand(filepath.Join(dir, "nosuch")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := expand(t.TempDir()); err == nil {
		t.Error("a directory without manifests is fine")
	}
}
