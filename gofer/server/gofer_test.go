// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/gofer"
	"sandboxctl.dev/gofer/sandboxlog"
)

// asFile is a detached mount as a file.
func asFile(t *testing.T, path string, attrs uint64) *os.File {
	t.Helper()
	requireRoot(t)
	fd := detached(t, path, attrs)
	if fd < 0 {
		t.FailNow()
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { f.Close() })
	return f
}

// serve is a typical set: a generated root with a bind, a volume, a file.
func serve(t *testing.T, host string, readOnly bool) served {
	t.Helper()
	return served{
		mounts: []gofer.Mount{
			{FD: -1, ReadOnly: true, Tree: &gofer.Tree{
				Dirs: []gofer.Dir{{Path: "etc", Mode: 0o755}}, Files: []gofer.File{{Path: "etc/passwd", Mode: 0o644, Content: "root\n"}}, Binds: []gofer.Bind{{Path: "usr", FD: fdFirst, IsDir: true}},
			}},
			{FD: fdFirst + 1, IsDir: true, ReadOnly: readOnly},
			{FD: fdFirst + 2, ReadOnly: true},
		},
		files: []*os.File{asFile(t, host+"/d", unix.MOUNT_ATTR_RDONLY), asFile(t, host+"/d", 0), asFile(t, host+"/file", unix.MOUNT_ATTR_RDONLY)},
		logs:  asFile(t, t.TempDir(), 0),
	}
}

// jailed waits until the gofer has given up everything.
func (g *goferUnderTest) jailed() {
	g.t.Helper()
	until(g.t, "the gofer is not jailed", func() bool {
		if g.cmd.Process.Pid == 0 || status(g.t, g.cmd.Process.Pid, "State") == "Z (zombie)" {
			g.t.Fatalf("it has ended: %d\n%s", g.exit(), g.stderr.String())
		}
		return status(g.t, g.cmd.Process.Pid, "Seccomp") == "2"
	})
}

func TestGofer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		readOnly, direct bool
		caps             uint64
	}{"read-only": {readOnly: true, caps: readerCaps}, "writable": {caps: writerCaps}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGofer(t, serve(t, hostFiles(t), c.readOnly))
			pid := g.cmd.Process.Pid
			// Gated, it is as it was started.
			if got := status(t, pid, "Seccomp"); got != "0" {
				t.Errorf("before its gate is open it has gone ahead: %s", got)
			}
			g.open()
			g.jailed()
			want := fmt.Sprintf("%016x", c.caps)
			none := fmt.Sprintf("%016x", 0)
			for field, want := range map[string]string{
				"CapEff": want, "CapPrm": want, "CapBnd": none, "CapInh": none, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2",
			} {
				if got := status(t, pid, field); got != want {
					t.Errorf("%s is %s, expected %s", field, got, want)
				}
			}
			root := fmt.Sprintf("/proc/%d/root", pid)
			if got := list(root); got != "fd m0 m1 m2" {
				t.Errorf("its root holds %s", got)
			}
			if b, err := os.ReadFile(root + "/m0/usr/served"); err != nil || string(b) != "served" {
				t.Errorf("%q %v", b, err)
			}
			g.checkDescriptors()

			for i, text := range []string{"out\n", "err\n", "sentry\n"} {
				_, err := g.out[i].WriteString(text)
				must(t, err)
			}
			until(t, "its logs are not written", func() bool {
				app := g.log("1.log")
				return strings.Contains(app, " stdout F out\n") && strings.Contains(app, " stderr F err\n") && strings.Contains(g.log("1.sentry.log"), " F sentry\n")
			})
			// What is in the pipes when the sentry dies is written too, also a
			// line without an end.
			_, err := g.out[0].WriteString("last words")
			must(t, err)
			for _, f := range g.out {
				must(t, f.Close())
			}
			must(t, g.sentry.in.Close())
			if code := g.exit(); code != gofer.ExitOK {
				t.Errorf("exit code %d\n%s", code, g.stderr.String())
			}
			if got := g.log("1.log"); !strings.HasSuffix(got, " stdout F last words\n") {
				t.Errorf("%q", got)
			}
			if b, err := os.ReadFile(g.left); err != nil || string(b) != "left" {
				t.Errorf("its mark is %q %v", b, err)
			}
			if strings.Contains(g.stderr.String(), "gofer: ") {
				t.Errorf("it says %s", g.stderr.String())
			}
		})
	}
}

// checkDescriptors fails the test if the gofer holds a directory through which
// it could reach what it does not serve.
func (g *goferUnderTest) checkDescriptors() {
	g.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", g.cmd.Process.Pid)
	es, err := os.ReadDir(dir)
	must(g.t, err)
	var logs unix.Stat_t
	must(g.t, unix.Stat(g.logs, &logs))
	for _, e := range es {
		p := filepath.Join(dir, e.Name())
		target, err := os.Readlink(p)
		if err != nil {
			continue // closed since
		}
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Ino == logs.Ino {
			continue
		}
		// Detached or below its root: in its own view, "..", again and again, is
		// its root at most.
		var host, up unix.Stat_t
		must(g.t, unix.Stat("/", &host))
		must(g.t, unix.Stat(p+strings.Repeat("/..", 20), &up))
		if up.Dev == host.Dev && up.Ino == host.Ino {
			g.t.Errorf("descriptor %s (%s) leads to the host's root", e.Name(), target)
		}
	}
}

// Nothing is done for a launcher that died, nor for a sentry that did.
func TestGoferEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		act  func(*goferUnderTest)
		code int
		left string
	}{
		"gate closed":  {func(g *goferUnderTest) { g.gate.Close() }, gofer.ExitGateClosed, ""},
		"another byte": {func(g *goferUnderTest) { g.gate.WriteString("x"); g.gate.Close() }, gofer.ExitGateClosed, ""},
		"sentry is dead": {func(g *goferUnderTest) {
			g.sentry.in.Close()
			g.sentry.cmd.Wait()
			g.open()
		}, gofer.ExitOK, "left"},
		// Somebody else holds the pipes: it does not wait for them for ever.
		"pipes are held": {func(g *goferUnderTest) { g.open(); g.jailed(); g.sentry.in.Close() }, gofer.ExitOK, "left"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGofer(t, serve(t, hostFiles(t), true))
			c.act(g)
			if code := g.exit(); code != c.code {
				t.Errorf("exit code %d, expected %d\n%s", code, c.code, g.stderr.String())
			}
			if b, err := os.ReadFile(g.left); err != nil || string(b) != c.left {
				t.Errorf("its mark is %q %v, expected %q", b, err, c.left)
			}
			if c.code == gofer.ExitGateClosed && list(g.logs) != "" {
				t.Errorf("it has written %s", list(g.logs))
			}
		})
	}
}

// What a gofer can't do it says, and leaves.
func TestGoferFails(t *testing.T) {
	t.Parallel()
	s := serve(t, hostFiles(t), true)
	s.mounts[1].FD = 1 << 20
	g := startGofer(t, s)
	g.open()
	if code := g.exit(); code != gofer.ExitFailed || !strings.Contains(g.stderr.String(), "gofer: attach mount 1") {
		t.Errorf("exit code %d\n%s", code, g.stderr.String())
	}
	bin, err := program()
	must(t, err)
	for _, c := range []struct {
		argv []string
		want string
	}{
		{[]string{gofer.Argv0}, "not by hand"},
		{[]string{gofer.Argv0, "3"}, "not by hand"},
		{[]string{gofer.Argv0, "3", "web"}, "not by hand"},
		{[]string{gofer.Argv0, "3", "web", "/s", "more"}, "not by hand"},
		{[]string{gofer.Argv0, "x", "web", "/s"}, "configuration descriptor"},
		{[]string{gofer.Argv0, "-1", "web", "/s"}, "no descriptor -1"},
		{[]string{gofer.Argv0, "777", "web", "/s"}, "bad file descriptor"},
		{[]string{gofer.Argv0, "0", "web", "/s"}, "EOF"}, // nothing is in it
	} {
		cmd := exec.Command(bin)
		cmd.Args = c.argv
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != gofer.ExitFailed || !strings.Contains(string(out), c.want) {
			t.Errorf("%q: %v\n%s", c.argv, err, out)
		}
	}
}

// tmpfs is a detached tmpfs of a size, by a mount of the directory at.
func tmpfs(t *testing.T, size string) *os.File {
	t.Helper()
	requireRoot(t)
	fsfd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	must(t, err)
	defer unix.Close(fsfd)
	must(t, unix.FsconfigSetString(fsfd, "size", size))
	must(t, unix.FsconfigCreate(fsfd))
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	must(t, err)
	f := os.NewFile(uintptr(fd), "tmpfs")
	t.Cleanup(func() { f.Close() })
	return f
}

// entries are the lines of a log that are there now.
func (g *goferUnderTest) entries() (texts []string) {
	g.t.Helper()
	f := sandboxlog.NewFollower(os.DirFS(g.logs), "1.log")
	defer f.Close()
	must(g.t, f.Next(func(e sandboxlog.Entry) error {
		texts = append(texts, string(e.Text))
		return nil
	}))
	return texts
}

// A gofer that serves and logs a little collects no garbage: what a collection needs of
// memory is more than what it gives back, and it took processor time while the sentry
// waited for the root.
func TestGoferCollectsNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, hostFiles(t), true)
	s.env = []string{"GODEBUG=gctrace=1"}
	g := startGofer(t, s)
	g.open()
	g.jailed()
	for i := range 100 {
		_, err := fmt.Fprintf(g.out[0], "line %d\n", i)
		must(t, err)
	}
	until(t, "the last line is not written", func() bool { return slices.Contains(g.entries(), "line 99") })
	g.sentry.in.Close()
	for _, w := range g.out {
		must(t, w.Close())
	}
	if code := g.exit(); code != gofer.ExitOK || strings.Contains(g.stderr.String(), "gc ") {
		t.Errorf("exit code %d, it says %q", code, g.stderr.String())
	}
}

// The logs are rotated, and survive a full disk, with what a jailed gofer may
// still do.
func TestGoferLogs(t *testing.T) {
	t.Parallel()
	s := serve(t, hostFiles(t), true)
	s.logs, s.maxBytes = tmpfs(t, "256k"), 100_000
	g := startGofer(t, s)
	g.open()
	g.jailed()
	line := strings.Repeat("x", 990)
	for i := range 300 {
		_, err := fmt.Fprintf(g.out[0], "%06d %s\n", i, line)
		must(t, err)
	}
	last := func() string {
		es := g.entries()
		if len(es) == 0 {
			return ""
		}
		return es[len(es)-1]
	}
	until(t, "the last line is not written", func() bool { return strings.HasPrefix(last(), "000299 ") })
	for _, n := range []string{"1.log", "1.log.1"} {
		if info, err := os.Stat(filepath.Join(g.logs, n)); err != nil || info.Size() > 100_000 {
			t.Errorf("%s: %v %v", n, info, err)
		}
	}
	// Somebody fills the disk.
	filler := filepath.Join(g.logs, "filler")
	must(t, os.WriteFile(filler, nil, 0o600))
	f, err := os.OpenFile(filler, os.O_WRONLY, 0)
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	must(t, f.Close())
	for i := range 300 {
		_, err := fmt.Fprintf(g.out[0], "%06d %s\n", i, line)
		must(t, err)
	}
	// The pipe is taken from all the same: it holds less than was written.
	must(t, os.Remove(filler))
	until(t, "it does not go on", func() bool {
		_, err := g.out[0].WriteString("after\n")
		must(t, err)
		return last() == "after"
	})
	if !slices.ContainsFunc(g.entries(), func(s string) bool { return strings.Contains(s, "lines were dropped") }) {
		t.Error("nobody is told that lines are missing")
	}
	must(t, g.sentry.in.Close())
	for _, f := range g.out {
		must(t, f.Close())
	}
	if code := g.exit(); code != gofer.ExitOK {
		t.Errorf("exit code %d\n%s", code, g.stderr.String())
	}
}
