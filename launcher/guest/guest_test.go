// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestMain(m *testing.M) {
	if os.Args[0] == Argv0 {
		os.Exit(Main(context.Background(), os.Args))
	}
	os.Exit(m.Run())
}

func sh(script string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}}
}

// start is Main as a program of its own: what it reports, what it and its
// application print, and the exit code.
func start(t *testing.T, hooks []specs.Hook, app ...string) (report, out string, code int) {
	t.Helper()
	argv, err := Argv(&Config{ReportFD: 3, Hooks: hooks, State: specs.State{ID: "web", Pid: 1}}, app)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args, cmd.Env, cmd.ExtraFiles = argv, []string{"PATH=/usr/bin:/bin", "A=b"}, []*os.File{w}
	said := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		said <- string(b)
	}()
	b, err := cmd.CombinedOutput()
	w.Close()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return <-said, string(b), cmd.ProcessState.ExitCode()
}

func TestMainProgram(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	one := 1
	own := sh("echo $A$B- >> " + out)
	own.Env = []string{"B=own"}
	for name, c := range map[string]struct {
		hooks       []specs.Hook
		app         []string
		report, out string
		code        int
	}{
		"becomes the application": {
			[]specs.Hook{sh("/bin/cat > " + out), sh("echo $A- >> " + out), own},
			[]string{"sh", "-c", "echo $A; test ! -e /proc/self/fd/3; exit 7"},
			Passed, "b\n", 7,
		},
		"hook fails": {
			[]specs.Hook{sh("echo no; exit 4"), sh("echo more >> " + out)},
			[]string{"true"},
			"error running startContainer hook #0: /bin/sh: exit status 4, output: no", "", 1,
		},
		"hook talks": {
			[]specs.Hook{sh("i=0; while [ $i -lt 9999 ]; do echo 12345678; i=$((i+1)); done; exit 1")},
			[]string{"true"},
			"error running startContainer hook #0: /bin/sh: exit status 1, output: " + strings.Repeat("12345678\n", 228)[:maxOutput], "", 1,
		},
		"hook hangs": {
			[]specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 60"}, Env: []string{"PATH=/bin"}, Timeout: &one}},
			[]string{"true"},
			"error running startContainer hook #0: /bin/sh: killed after 1s", "", 1,
		},
		"hook is missing": {
			[]specs.Hook{{Path: "/none"}},
			[]string{"true"},
			"error running startContainer hook #0: /none: fork/exec /none: no such file or directory, output: ", "", 1,
		},
		"application is missing": {
			[]specs.Hook{sh("true")},
			[]string{"none-such"},
			Passed + `find application: exec: "none-such": executable file not found in $PATH`, "", 127,
		},
		"application is a directory": {nil, []string{"/tmp"}, Passed + `find application: exec: "/tmp": is a directory`, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			report, said, code := start(t, c.hooks, c.app...)
			if report != c.report || said != c.out || code != c.code {
				t.Errorf("report %q, output %q, exit code %d", report, said, code)
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	// The state on stdin, and the application's environment, or the hook's own if it
	// has one; the hook after one that failed did not run.
	if got := string(b); !strings.HasPrefix(got, `{"ociVersion":"","id":"web","status":"","pid":1,`) || !strings.HasSuffix(got, "}b-\nown-\n") {
		t.Errorf("the hooks wrote %q", got)
	}
}

func TestCalledByHand(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{Argv0}, {Argv0, "{}"}, {Argv0, "x", "y"}} {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
		cmd.Args = args
		b, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || !strings.HasPrefix(string(b), "sandboxctl-init: ") {
			t.Errorf("%v: %d %s", args, cmd.ProcessState.ExitCode(), b)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	zero, ten := 0, 10
	for want, h := range map[string]specs.Hook{
		`path: expected an absolute path, got "a"`:     {Path: "a"},
		"timeout: expected more than 0 seconds, got 0": {Path: "/a", Timeout: &zero},
	} {
		if err := Check(&h); err == nil || err.Error() != want {
			t.Errorf("%v, expected %s", err, want)
		}
	}
	h := specs.Hook{Path: "/a", Timeout: &ten}
	if err := Check(&h); err != nil || Timeout(&h) != 10*time.Second || Timeout(&specs.Hook{}) != DefaultTimeout {
		t.Error(err)
	}
}
