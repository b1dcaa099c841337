// SPDX-License-Identifier: Apache-2.0

package pidone

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/onepage"
	"sandboxctl.dev/launcher/proc/proctest"
)

// initProcess is a running init process of the host.
type initProcess struct {
	*os.Process
	report *os.File
	out    *os.File
}

// run starts the init process itself, not in gVisor. Its own PID namespace makes it
// process 1, whom orphans become children of.
func run(t *testing.T, namespaces uintptr, try []string, argv ...string) *initProcess {
	t.Helper()
	if !Available() {
		t.Skip("there is no init process for this processor")
	}
	file := filepath.Join(t.TempDir(), "init")
	if err := proctest.WriteProgram(file, Program(try), 0o700); err != nil {
		t.Fatal(err)
	}
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		return r, w
	}
	report, reportW := pipe()
	out, outW := pipe()
	attr := &os.ProcAttr{
		Env:   []string{"PATH=/usr/bin:/bin", "A=b", ""},
		Files: []*os.File{nil, outW, outW, reportW},
		Sys:   &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: unix.SIGKILL},
	}
	if namespaces != 0 && os.Geteuid() != 0 {
		attr.Sys.Cloneflags |= unix.CLONE_NEWUSER
		attr.Sys.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
	}
	p, err := os.StartProcess(file, append([]string{Name}, argv...), attr)
	if err != nil {
		t.Fatal(err)
	}
	reportW.Close()
	outW.Close()
	return &initProcess{p, report, out}
}

// started waits for the report.
func (p *initProcess) started(t *testing.T) (*Failure, bool) {
	t.Helper()
	b, err := io.ReadAll(p.report)
	if err != nil {
		t.Fatal(err)
	}
	return ReadReport(b)
}

// end waits for the end, and returns what was written.
func (p *initProcess) end(t *testing.T) (string, syscall.WaitStatus) {
	t.Helper()
	timeout := time.AfterFunc(time.Minute, func() { _ = p.Kill() })
	defer timeout.Stop()
	b, err := io.ReadAll(p.out)
	if err != nil {
		t.Fatal(err)
	}
	st, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return string(b), st.Sys().(syscall.WaitStatus)
}

// waits waits until the process waits for signals.
func (p *initProcess) waits(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", p.Pid))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("it is in %q: %v", b, err)
		}
		if strings.HasPrefix(string(b), fmt.Sprint(unix.SYS_RT_SIGTIMEDWAIT)+" ") {
			return
		}
	}
}

// read reads a line of the application.
func (p *initProcess) read(t *testing.T) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; line = append(line, b[0]) {
		if _, err := p.out.Read(b); err != nil || b[0] == '\n' {
			return string(line)
		}
	}
}

var sh = []string{"/nosuch/sh", "/bin/sh"}

// end ends a process that must be there.
func end(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(n)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// leavesChild leaves a child behind and says its number.
const leavesChild = "sleep 1000 >/dev/null 2>&1 & echo $!; exit 4"

// The init process ends as the application does.
func TestEndsAsApplication(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]syscall.WaitStatus{
		"exit 0": 0, "exit 3": 3 << 8, "exit 255": 255 << 8,
		"kill -TERM $$": 15, "kill -KILL $$": 9, "ulimit -c 0; kill -SEGV $$": 11, "kill -64 $$": 64, "kill -1 $$": 1,
		// What is left of it does not keep the init process.
		leavesChild: 4 << 8,
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			p := run(t, 0, sh, "sh", "-c", script)
			if f, ok := p.started(t); f != nil || !ok {
				t.Errorf("reported %+v %v", f, ok)
			}
			out, got := p.end(t)
			if got&^0x80 != want {
				t.Errorf("status %#x, expected %#x", got, want)
			}
			if script == leavesChild {
				end(t, strings.TrimSpace(out))
			}
			// As process 1 on Linux it can't die by a signal of its own.
			p = run(t, unix.CLONE_NEWPID, sh, "sh", "-c", script)
			if want.Signaled() {
				want = (128 + want) << 8
			}
			if _, got := p.end(t); got != want {
				t.Errorf("process 1: status %#x, expected %#x", got, want)
			}
		})
	}
}

// What the application is started with: its own command line, environment,
// descriptors, process group and signals.
func TestApplication(t *testing.T) {
	t.Parallel()
	p := run(t, unix.CLONE_NEWPID, sh, "sh", "-c", `echo $0 "$1" $A $$ $PPID; [ -e /proc/self/fd/2 ] && [ ! -e /proc/self/fd/3 ] && echo fds; grep Sig /proc/self/status`, "zero", "one  two")
	got, status := p.end(t)
	if status != 0 {
		t.Errorf("status %#x", status)
	}
	// A signal that our parent ignores is ignored with and without an init process.
	ignored, err := exec.Command("grep", "SigIgn", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"zero one  two b 2 1\n", "\nfds\n", "SigBlk:\t0000000000000000\n", string(ignored), "SigPnd:\t0000000000000000\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	p = run(t, 0, sh, "sh", "-c", "ps -o comm= -p $PPID; ps -o pid=,pgid= -p $$; cat /proc/$PPID/cmdline; echo; cat /proc/$PPID/maps")
	got, _ = p.end(t)
	lines := strings.Split(got, "\n")
	if ids := strings.Fields(lines[1]); lines[0] != Name || len(ids) != 2 || ids[0] != ids[1] {
		t.Errorf("name, process and group: %q", lines[:2])
	}
	if !strings.HasPrefix(lines[2], Name+"\x00sh\x00-c\x00") {
		t.Errorf("command line %q", lines[2])
	}
	// No page of it is writable and executable, or of the file.
	for _, l := range lines[3:] {
		if strings.Contains(l, "wx") || strings.Contains(l, "/init") {
			t.Errorf("mapped: %s", l)
		}
	}
}

// Every signal but those that nobody can catch is passed on, also several at once
// and the real-time ones.
func TestForwards(t *testing.T) {
	t.Parallel()
	// What this program ignores, as after nohup, a shell that it starts can't catch.
	for _, s := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	p := run(t, unix.CLONE_NEWPID, []string{"/bin/bash"}, "bash", "-c", `
		for s in $(seq 1 64); do
			case $s in 9|17|19|32|33) continue;; esac
			trap "echo got $s" $s
		done
		echo ready
		while :; do read -t 0.1 < /dev/zero; done`)
	if f, ok := p.started(t); f != nil || !ok {
		t.Fatal(f, ok)
	}
	if got := p.read(t); got != "ready" {
		t.Fatal(got)
	}
	for s := 1; s <= 64; s++ {
		switch s {
		case 9, 17, 19, 32, 33: // SIGKILL, SIGCHLD, SIGSTOP; bash has no trap for glibc's own
			continue
		}
		if err := p.Signal(syscall.Signal(s)); err != nil {
			t.Fatal(err)
		}
		if got := p.read(t); got != "got "+strconv.Itoa(s) {
			t.Fatalf("signal %d: %q", s, got)
		}
	}
	// A child of the application has nothing of that.
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, status := p.end(t); status.Signal() != unix.SIGKILL {
		t.Errorf("status %#x", status)
	}
}

// An application without a handler ends by the signal, at once.
func TestNoHandler(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, 34, 64} {
		p := run(t, 0, []string{"/bin/sleep"}, "sleep", "1000")
		if f, ok := p.started(t); f != nil || !ok {
			t.Fatal(f, ok)
		}
		if err := p.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if _, status := p.end(t); !status.Signaled() || status.Signal() != sig {
			t.Errorf("%v: status %#x", sig, status)
		}
	}
}

// Orphans are reaped, however many end at once, and while signals arrive.
func TestReaps(t *testing.T) {
	t.Parallel()
	p := run(t, unix.CLONE_NEWPID, sh, "sh", "-c", `
		trap : USR1
		echo ready
		for i in $(seq 300); do (exec >/dev/null; (exit $((i % 7))) &) & done
		wait
		echo forked
		while :; do sleep 1; done`)
	if got := p.read(t); got != "ready" {
		t.Fatal(got)
	}
	for range 50 {
		if err := p.Signal(unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.read(t); got != "forked" {
		t.Fatal(got)
	}
	left := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.Pid, p.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if left = string(b); len(strings.Fields(left)) == 1 {
			break
		}
	}
	if len(strings.Fields(left)) != 1 {
		t.Errorf("orphans are left: %s", left)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	p.end(t)
}

// Why an application is not started is told: which file, and which error.
func TestFailures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := proctest.WriteProgram(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	plain := file("plain", "#!/bin/sh\necho ran\n", 0o600)
	script := file("script", "#!/bin/sh\necho ran\n", 0o700)
	lost := file("lost", "#!/no/interpreter\n", 0o700)
	garbage := file("garbage", "\x01\x02", 0o700)
	missing := filepath.Join(dir, "missing")
	var many []string
	for i := range 300 {
		many = append(many, filepath.Join(dir, strings.Repeat("x", 100), strconv.Itoa(i)))
	}
	for name, c := range map[string]struct {
		try  []string
		want *Failure
	}{
		"none":                {nil, &Failure{Errno: unix.ENOENT, File: -1}},
		"missing":             {[]string{missing}, &Failure{Errno: unix.ENOENT, File: -1}},
		"nearly itself":       {[]string{"/proc/self/exec"}, &Failure{Errno: unix.ENOENT, File: -1}},
		"below a file":        {[]string{missing, script + "/x"}, &Failure{Errno: unix.ENOTDIR, File: -1}},
		"not executable":      {[]string{missing, plain, missing}, &Failure{Errno: unix.EACCES, File: -1}},
		"a directory":         {[]string{dir}, &Failure{Errno: unix.EACCES, File: -1}},
		"the next one":        {[]string{missing, plain, dir, script, lost}, nil},
		"no interpreter":      {[]string{missing, lost, script}, &Failure{Errno: unix.ENOENT, File: 1}},
		"no program":          {[]string{garbage}, &Failure{Errno: unix.ENOEXEC, File: 0}},
		"many":                {slices.Concat(many, []string{script}), nil},
		"many, then the last": {slices.Concat(many, []string{garbage}), &Failure{Errno: unix.ENOEXEC, File: 300}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := run(t, 0, c.try, "name")
			got, ok := p.started(t)
			if c.want == nil {
				said, status := p.end(t)
				if got != nil || !ok || said != "ran\n" || status != 0 {
					t.Errorf("%+v %v %q %#x", got, ok, said, status)
				}
				return
			}
			if !ok || got == nil || *got != *c.want {
				t.Errorf("%+v %v, expected %+v", got, ok, c.want)
			}
			p.waits(t)
			if err := p.Signal(unix.SIGTERM); err != nil {
				t.Error(err)
			}
			if said, status := p.end(t); said != "" || status != 127<<8 {
				t.Errorf("%q, status %#x", said, status)
			}
		})
	}
	p := run(t, 0, sh)
	if _, status := p.end(t); status != 2<<8 {
		t.Errorf("without a command: status %#x", status)
	}
}

// An init process that is to execute itself starts nothing, says that it runs, and waits for a
// signal. The end of an orphan is none.
func TestHold(t *testing.T) {
	t.Parallel()
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		p := run(t, unix.CLONE_NEWPID, Hold(), Hold()...)
		if f, ok := p.started(t); f != nil || !ok {
			t.Fatalf("%+v %t", f, ok)
		}
		for range 2 {
			p.waits(t)
			children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", p.Pid))
			if err != nil || len(children) != 0 {
				t.Fatalf("it has children: %s (%v)", children, err)
			}
			if err := p.Signal(unix.SIGCHLD); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if said, status := p.end(t); said != "" || status != syscall.WaitStatus(128+sig)<<8 {
			t.Errorf("%s: %q, status %#x", sig, said, status)
		}
	}
}

// A user who may start no other process is told so.
func TestNoChild(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "it takes root to become a user with no process left")
	file := filepath.Join(t.TempDir(), "init")
	if err := proctest.WriteProgram(file, Program(sh), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "exec 3>&1; cd /; exec prlimit --nproc=1 setpriv --reuid 54321 --clear-groups "+file+" sh -c true >/dev/null")
	if err := os.Chmod(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(file); d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(stdout)
	if f, ok := ReadReport(out); !ok || f == nil || !f.NoChild || f.Errno != unix.EAGAIN {
		t.Errorf("%q %v: %+v", out, err, f)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
}

// Where nobody reads the report the application runs, and has no signal of that.
func TestNobodyReads(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "init")
	if err := proctest.WriteProgram(file, Program(sh), 0o700); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	p, err := os.StartProcess(file, []string{Name, "sh", "-c", "sleep 0.2; exit 5"}, &os.ProcAttr{Files: []*os.File{nil, nil, nil, w}})
	if err != nil {
		t.Fatal(err)
	}
	st, err := p.Wait()
	if err != nil || st.ExitCode() != 5 {
		t.Errorf("%v %v", st, err)
	}
}

func TestReadReport(t *testing.T) {
	t.Parallel()
	for _, said := range []string{"", "\x06\x06", "\x15", "\x15\x02\x00", "\x15\x02\x00\x00\x00", "x", "\x06\x02\x00\x00"} {
		if f, ok := ReadReport([]byte(said)); ok {
			t.Errorf("%q: %+v", said, f)
		}
	}
}

// The files follow the text, which leaves them their place.
func TestProgram(t *testing.T) {
	t.Parallel()
	for _, try := range [][]string{nil, {"/bin/sh"}, {strings.Repeat("x", 5000), "y"}} {
		files := Program(try)[onepage.Data:]
		if want := strings.Join(append(try, ""), "\x00"); !bytes.HasPrefix(files, []byte(want)) {
			t.Errorf("files: %q", files[:20])
		}
	}
	if n := len(instructions()); Available() && (n < 500 || n > onepage.Data-256) {
		t.Errorf("%d bytes of text", n)
	}
}

func TestIsInit(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]bool{
		"tini -- app": true, "/usr/bin/dumb-init app": true, "/sbin/init": true, "/lib/systemd/systemd": true, "/init": true, "catatonit": true,
		"s6-svscan /x": true, "/sbin/docker-init": true, "busybox init": true, "/bin/busybox init": true, "./runit": true, "runsvdir -P /etc/service": true,
		"": false, "sh -c tini": false, "busybox sh": false, "busybox": false, "/tini/app": false, "systemd-run x": false, "initdb": false, "tini.sh": false, "env tini": false,
	} {
		if got := IsInit(strings.Fields(command)); got != want {
			t.Errorf("%q: %v", command, got)
		}
	}
}
