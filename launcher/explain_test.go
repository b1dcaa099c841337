// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/launcher/setup"
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
		"none of these":        {"starting sandbox: creating process: it rains", "", "the application can't be started: it rains", false},
		"escapes in a script":  {load + "no such file or directory", "#!/\x1b[2Jx\n", "interpreter not found in the sandbox: / [2Jx", true},
		"too many processes":   {"try again", "", "its user has as many as the limit NPROC allows", false},
		"too many, at a start": {"starting sandbox: creating process: try again", "", "no process can be started in the sandbox", false},
		"no such limit":        {load + "please try again", "", "/f/x can't be executed in the sandbox: please try again", false},
	} {
		err := explainCommand(fmt.Errorf("start: %w", &RemoteError{Message: c.said}), func(p string) []byte {
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
		unknown := slices.Contains([]string{"none of these", "something else", "no such limit", "too many processes", "too many, at a start"}, name)
		if operation.Unfit(err) == unknown {
			t.Errorf("%s: unfit: %v", name, !unknown)
		}
		if strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%s: %q", name, err)
		}
	}
	if other := errors.New("other"); explainCommand(other, nil) != other {
		t.Error("another error is not left as it is")
	}
}

// The file of a command is found where its application would find it, and nothing
// else is opened.
func TestPeek(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, volume := filepath.Join(dir, "root"), filepath.Join(dir, "volume")
	for file, text := range map[string]string{
		root + "/bin/a": "in the root", root + "/v/b": "hidden by the volume", volume + "/b": "in the volume", volume + "/sub/c": "deeper", dir + "/secret": "outside",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(
		os.Symlink("../secret", volume+"/out"), os.Symlink("/sub/c", volume+"/inside"), unix.Mkfifo(volume+"/fifo", 0o600),
		os.WriteFile(volume+"/long", []byte(strings.Repeat("x", 1000)), 0o644),
	)
	if err != nil {
		t.Fatal(err)
	}
	st := &setup.Setup{Spec: &specs.Spec{Mounts: []specs.Mount{
		{Destination: "/proc", Type: "proc"}, {Destination: "/v", Type: "bind"}, {Destination: "/v/tmp", Type: "tmpfs"}, {Destination: "/file", Type: "bind"},
	}}, Root: setup.Source{Path: root}, Volumes: []setup.Source{{Path: volume}, {Path: volume + "/b"}}}
	for p, want := range map[string]string{
		"/bin/a": "in the root", "/v/b": "in the volume", "/v/sub/c": "deeper", "/v/inside": "deeper", "/file": "in the volume", "/v/../bin/a": "",
		"/v/out": "", "/v/fifo": "", "/v/none": "", "/v/sub": "", "/v": "", "/": "", "/proc/version": "", "/v/tmp/b": "", "/vb": "",
		"/v/long": strings.Repeat("x", maxInterpreterLine),
	} {
		if got := string(peek(st, p)); got != want {
			t.Errorf("%s: %.40q, expected %.40q", p, got, want)
		}
	}
	st = &setup.Setup{Spec: &specs.Spec{}, Root: setup.Source{Host: true}}
	if got := peek(st, "/usr/bin/env"); len(got) == 0 {
		t.Error("nothing of the host's programs")
	}
	if got := peek(st, "/etc/passwd"); got != nil {
		t.Errorf("the host's own passwd: %q", got)
	}
}
