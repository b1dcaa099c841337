// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
)

// script is a hook that runs shell commands.
func script(format string, args ...any) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf(format, args...)}}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHookInput(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	state := specs.State{
		Version: specs.Version, ID: "web", Status: specs.StateCreated, Pid: 4711, Bundle: "/b", Annotations: map[string]string{"a": "b"},
	}
	set := Set{Kind: "prestart", Hooks: []specs.Hook{script("cat > %s", out)}}
	// The shell finds cat in a PATH of its own: none is handed on.
	if err := set.Run(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(content(t, out)), &got); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]any{"ociVersion": specs.Version, "id": "web", "status": "created", "pid": 4711.0, "bundle": "/b"} {
		if got[k] != want {
			t.Errorf("%s is %v, expected %v", k, got[k], want)
		}
	}
	if a, _ := got["annotations"].(map[string]any); a["a"] != "b" {
		t.Errorf("annotations are %v", got["annotations"])
	}
}

// A hook is executed with what its configuration says, to the letter, or in the
// environment that it is to have without one, and with nothing of this process.
func TestHookArgsAndEnv(t *testing.T) {
	t.Setenv("SANDBOXCTL_TEST_OF_HOOKS", "leaked")
	// The shell reads commands from stdin and says what it was executed with.
	const look = `printf '<'; tr '\0' '|' < /proc/$$/cmdline; printf '><'; tr '\0' '|' < /proc/$$/environ; echo '>'; exit 1`
	for _, tc := range []struct {
		args, env, without []string
		want               string
	}{
		{[]string{"zero", "-s", "one  two", "$A", ""}, []string{"A=1", "B= x "}, []string{"C=3"}, "<zero|-s|one  two|$A||><A=1|B= x |>"},
		{[]string{"zero"}, []string{}, nil, "<zero|><>"},
		{nil, nil, nil, "</bin/sh|><>"},
		{nil, nil, []string{"C=3", "D="}, "</bin/sh|><C=3|D=|>"},
	} {
		err := Set{Env: tc.without}.runHook(t.Context(), &specs.Hook{Path: "/bin/sh", Args: tc.args, Env: tc.env}, []byte(look))
		if err == nil || !strings.Contains(err.Error(), "exit status 1, output: "+tc.want) {
			t.Errorf("%q %q: got %v, expected %s", tc.args, tc.env, err, tc.want)
		}
	}
}

func TestHookFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		hook specs.Hook
		want []string // in the error
	}{
		{"exit code", script("echo out; echo no such device >&2; exit 3"), []string{"poststart hook #0", "/bin/sh", "exit status 3", "out\nno such device"}},
		{"signal", script("kill -TERM $$"), []string{"poststart hook #0", "signal: terminated"}},
		{"missing", specs.Hook{Path: "/nonexistent/hook"}, []string{"poststart hook #0", "/nonexistent/hook", "no such file"}},
		{"no timeout", specs.Hook{Path: "/bin/true", Timeout: new(0)}, []string{"poststart hook #0", "timeout"}},
		{"negative timeout", specs.Hook{Path: "/bin/true", Timeout: new(-1)}, []string{"timeout", "-1"}},
		{"searched in our PATH", specs.Hook{Path: "true"}, []string{"absolute", `"true"`}},
		{"no path", specs.Hook{}, []string{"absolute"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := Set{Kind: "poststart", Hooks: []specs.Hook{tc.hook}}.Run(t.Context(), specs.State{})
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q has no %q", err, w)
				}
			}
		})
	}
}

// One that has not read its input, which does not fit into the pipe, has not
// failed.
func TestHookIgnoresInput(t *testing.T) {
	t.Parallel()
	state := specs.State{Annotations: map[string]string{"a": strings.Repeat("x", 1<<20)}}
	if err := (Set{Kind: "poststop", Hooks: []specs.Hook{{Path: "/bin/true"}}}).Run(t.Context(), state); err != nil {
		t.Error(err)
	}
}

// What ends a hook before its time ends what it has started as well.
func TestHookKilled(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		timeout *int
		want    string
	}{
		{"timeout", new(1), "killed after 1s"},
		{"cancelled", nil, context.Canceled.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			path := filepath.Join(t.TempDir(), "alive")
			if err := unix.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			alive, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer alive.Close()
			h := script("exec 9> %s; sleep 30 & echo up >&9; wait", path)
			h.Timeout = tc.timeout
			if tc.timeout == nil {
				time.AfterFunc(500*time.Millisecond, cancel)
			}
			err = within(t, 20*time.Second, func() error { return Set{}.runHook(ctx, &h, nil) })
			if err == nil || !strings.Contains(err.Error(), "/bin/sh") || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, expected one with %q", err, tc.want)
			}
			// The pipe ends with the last of them.
			alive.SetReadDeadline(time.Now().Add(2 * time.Minute))
			if b, err := io.ReadAll(alive); err != nil || string(b) != "up\n" {
				t.Errorf("read %q, %v", b, err)
			}
		})
	}
}

// A hook that leaves something running in the background has succeeded, and it
// goes on.
func TestHookLeavesChild(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	for _, p := range []string{in, out} {
		if err := unix.Mkfifo(p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w, err := os.OpenFile(in, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(out, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(errors.Join(err, w.Close()))
	}
	defer r.Close()
	h := script("{ read x; echo $x > %s; } < %s &", out, in)
	h.Timeout = new(30)
	err = within(t, 20*time.Second, func() error { return Set{}.runHook(t.Context(), &h, nil) })
	if err != nil {
		t.Error(err)
	}
	_, err = w.WriteString("on\n")
	r.SetReadDeadline(time.Now().Add(2 * time.Minute))
	var b [8]byte
	n, rerr := r.Read(b[:])
	if err != nil || rerr != nil || string(b[:n]) != "on\n" {
		t.Errorf("the child says %q, %v %v", b[:n], err, rerr)
	}
	w.Close()
}

func TestHookOrder(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	set := Set{Kind: "prestart", Hooks: []specs.Hook{
		script("echo a >> %s", log), script("echo b >> %s; exit 1", log), script("echo c >> %s", log), script("exit 2"),
	}}
	err := set.Run(t.Context(), specs.State{})
	if err == nil || !strings.Contains(err.Error(), "prestart hook #1") {
		t.Errorf("got %v", err)
	}
	if got := content(t, log); got != "a\nb\n" {
		t.Errorf("up to the first that fails, these ran: %q", got)
	}

	set.Kind = "poststop"
	if err := os.Truncate(log, 0); err != nil {
		t.Fatal(err)
	}
	var warned []string
	set.RunAll(t.Context(), specs.State{}, func(format string, args ...any) { warned = append(warned, fmt.Sprintf(format, args...)) })
	if got := content(t, log); got != "a\nb\nc\n" {
		t.Errorf("of all, these ran: %q", got)
	}
	if len(warned) != 2 || !strings.Contains(warned[0], "poststop hook #1") || !strings.Contains(warned[1], "poststop hook #3") {
		t.Errorf("warnings: %q", warned)
	}
}

// However long the timeouts of hooks are, and however many there are, they end at
// the limit of their set, and the operation has given up its worker.
func TestHookLimit(t *testing.T) {
	t.Parallel()
	long := 100000
	sleep := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 1000"}, Env: []string{"PATH=/bin:/usr/bin"}}
	patient := sleep
	patient.Timeout = &long
	for name, hooks := range map[string][]specs.Hook{"no timeout": {sleep}, "a day": {patient}, "many": {patient, sleep, patient, patient}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			waits := 0
			ctx, cancel := operation.New(t.Context(), func() { waits++ })
			defer cancel(nil)
			s := Set{Kind: "poststop", Hooks: hooks, Limit: 200 * time.Millisecond}
			err := within(t, 20*time.Second, func() error { return s.Run(ctx, specs.State{}) })
			if err == nil || !strings.Contains(err.Error(), "killed after 200ms, which is maxHookTime of the host policy") {
				t.Errorf("one after the other: %v", err)
			}
			warned := 0
			err = within(t, 20*time.Second, func() error {
				s.RunAll(ctx, specs.State{}, func(string, ...any) { warned++ })
				return nil
			})
			if err != nil || warned != len(hooks) || waits != 2 {
				t.Errorf("all: %v, %d warnings; gave up its worker %d times", err, warned, waits)
			}
		})
	}
}

// within fails a test whose function hangs.
func within(t *testing.T, limit time.Duration, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		t.Fatalf("it has not returned after %s", limit)
		return nil
	}
}
