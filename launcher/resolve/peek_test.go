// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
)

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
	st := &setup.Setup{Containers: []setup.Container{{Spec: &specs.Spec{Mounts: []specs.Mount{
		{Destination: "/proc", Type: "proc"}, {Destination: "/v", Type: "bind"}, {Destination: "/v/tmp", Type: "tmpfs"}, {Destination: "/file", Type: "bind"},
	}}, Root: setup.Source{Path: root}, Volumes: []setup.Source{{Path: volume}, {Path: volume + "/b"}}}}}
	for p, want := range map[string]string{
		"/bin/a": "in the root", "/v/b": "in the volume", "/v/sub/c": "deeper", "/v/inside": "deeper", "/file": "in the volume", "/v/../bin/a": "",
		"/v/out": "", "/v/fifo": "", "/v/none": "", "/v/sub": "", "/v": "", "/": "", "/proc/version": "", "/v/tmp/b": "", "/vb": "",
		"/v/long": strings.Repeat("x", sentry.MaxInterpreterLine),
	} {
		if got := string(Peek(st, nil, p, sentry.MaxInterpreterLine)); got != want {
			t.Errorf("%s: %.40q, expected %.40q", p, got, want)
		}
	}
	st = &setup.Setup{Containers: []setup.Container{{Spec: &specs.Spec{}, Root: setup.Source{Host: true}}}}
	if got := Peek(st, nil, "/usr/bin/env", sentry.MaxInterpreterLine); len(got) == 0 {
		t.Error("nothing of the host's programs")
	}
	if got := Peek(st, nil, "/etc/passwd", sentry.MaxInterpreterLine); got != nil {
		t.Errorf("the host's own passwd: %q", got)
	}
}
