// SPDX-License-Identifier: Apache-2.0

package appstart

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/pidone"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/sentry"
)

// Nobody who has the file of the init process can change it, and each sandbox has
// its own.
func TestInitFile(t *testing.T) {
	t.Parallel()
	p := &specs.Process{Args: []string{"sh", "-c", "x"}, Cwd: "/", Env: []string{"PATH=/a:/b"}}
	open := func() *os.File {
		var d proc.Donation
		fd, first, err := giveInit(p, &d)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		if fd != proc.FirstDonated || !slices.Equal(first.Args, []string{pidone.Name, "sh", "-c", "x"}) || !slices.Equal(first.Env, p.Env) || len(p.Args) != 3 {
			t.Errorf("%d %+v %+v", fd, first, p)
		}
		return d.Descriptors()[0]
	}
	f, other := open(), open()
	b, err := io.ReadAll(f)
	if err != nil || !slices.Equal(b, pidone.Program([]string{"/a/sh", "/b/sh"})) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := f.Write([]byte("x")); !errors.Is(err, unix.EBADF) {
		t.Errorf("write: %v", err)
	}
	w, err := os.OpenFile(proc.FDPath(f), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write([]byte("x")); !errors.Is(err, unix.EPERM) {
		t.Errorf("write to it opened anew: %v", err)
	}
	if err := w.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate: %v", err)
	}
	a, _ := f.Stat()
	if o, _ := other.Stat(); os.SameFile(a, o) {
		t.Error("two sandboxes have one file")
	}
}

func TestCommandFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ command, cwd, env, want string }{
		{"/bin/sh", "/x", "PATH=/a", "/bin/sh"},
		{"./run", "/srv/app", "PATH=/a", "/srv/app/run"},
		{"bin/../run", "/", "", "/run"},
		{"run", "/x", "PATH=/a:rel::/b/", "/a/run /b/run"},
		{"run", "/x", "HOME=/h", ""},
	} {
		p := &specs.Process{Args: []string{c.command}, Cwd: c.cwd, Env: []string{"A=b", c.env}}
		if got := strings.Join(commandFiles(p), " "); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// What the init process reports is told in the words that gVisor's error is.
func TestInitFailure(t *testing.T) {
	t.Parallel()
	p := &specs.Process{Args: []string{"run"}, Cwd: "/", Env: []string{"PATH=/a:/b"}}
	named := &specs.Process{Args: []string{"/a/run"}, Cwd: "/"}
	for _, c := range []struct {
		f    pidone.Failure
		p    *specs.Process
		want string
	}{
		{pidone.Failure{Errno: unix.ENOENT, File: -1}, p, "command not found in the sandbox: run (PATH /a:/b)"},
		{pidone.Failure{Errno: unix.EACCES, File: -1}, p, "command can't be executed in the sandbox: run (permission denied)"},
		{pidone.Failure{Errno: unix.ENOENT, File: -1}, named, "command not found in the sandbox: /a/run"},
		{pidone.Failure{Errno: unix.EACCES, File: -1}, named, "/a/run can't be executed in the sandbox: it is a directory"},
		{pidone.Failure{Errno: unix.ENOEXEC, File: 1}, p, "/b/run can't be executed in the sandbox: it is neither"},
		{pidone.Failure{Errno: unix.ENOEXEC, File: 7}, p, "command can't be executed in the sandbox: run (exec format error)"},
		{pidone.Failure{Errno: unix.EAGAIN, NoChild: true, File: -1}, p, "the application can't be started: no process for it: resource temporarily unavailable"},
	} {
		err := sentry.ExplainCommand(initFailure(&c.f, c.p), func(string) []byte { return nil })
		if !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.f, err)
		}
	}
}

// A launcher that dies after it has read a failure, and before it has recorded it,
// leaves it for the next one.
func TestInitReport(t *testing.T) {
	t.Parallel()
	for said, c := range map[string]struct{ failed, ok, again bool }{
		"\x06":             {false, true, false},
		"\x15\x02\xff\xff": {true, true, true},
		"\x15\x0b\xfe\xff": {true, true, true},
		"\x15\x08\x00\x00": {true, true, true},
		"nonsense":         {false, false, false},
		"":                 {false, false, false},
	} {
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		kept, w, err := makeStartReport(int(dir.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, _, err := initReport(ctx, kept); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before it says anything: %v", err)
		}
		cancel()
		if _, err := w.WriteString(said); err != nil {
			t.Fatal(err)
		}
		w.Close()
		for i, ok := range []bool{c.ok, c.again, c.again} {
			r, err := openStartReportIn(int(dir.Fd()), unix.O_RDONLY)
			if err != nil {
				t.Fatal(err)
			}
			f, got, err := initReport(t.Context(), r)
			r.Close()
			if err != nil || got != ok || (f != nil) != (ok && c.failed) {
				t.Errorf("%q, look %d: %+v %v %v", said, i, f, got, err)
			}
		}
	}
}
