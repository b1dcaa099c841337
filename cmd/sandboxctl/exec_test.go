// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/launcher/wire"
)

// blockingPipe makes a pipe whose ends block: a program that is given one shares the
// flag with us.
func blockingPipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// execHost has one running sandbox, web, with the programs of the host.
func execHost(t *testing.T) *host {
	t.Helper()
	requireHost(t)
	h := daemonHost(t)
	h.dropRoot("web", "{host: {}}", "  command: [sleep, infinity]\n  terminationGracePeriod: 0s\n")
	h.until("running", func() bool {
		r, _, _ := h.store.Get("web")
		return r != nil && r.Phase == "Running"
	})
	return h
}

// commands are what runs in web beside the application. Zombies do not run.
func (h *host) commands() (out []string) {
	h.b.Helper()
	b, err := h.command("ps", "web", "-o", "json").Output()
	h.must(err)
	var ps []wire.Process
	h.must(json.Unmarshal(b, &ps))
	for _, p := range ps {
		if p.State == "" {
			h.b.Errorf("process %d has no state", p.PID)
		}
		if p.PID > 2 && p.State != "Z" { // 1 is the init process, 2 the application
			out = append(out, p.Cmd)
		}
	}
	slices.Sort(out)
	return out
}

// within fails if a command does not end soon, and kills it then.
func within(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	late := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !late.Stop() {
		t.Errorf("%v did not end", cmd.Args)
	}
	return exitCode(err)
}

// exec ends with its command, whatever that left behind with whichever stream.
func TestExecBackground(t *testing.T) {
	h := execHost(t)
	for name, c := range map[string]struct{ script, out string }{
		"stdout":        {"sleep 300 & echo started", "started\n"},
		"all streams":   {"sleep 300 <&0 & echo started", "started\n"},
		"own session":   {"setsid sleep 300 & echo started", "started\n"},
		"writes on":     {"yes noise | cat & echo started; exit 3", "started\n"},
		"much is there": {"head -c 50000 /dev/zero | tr '\\0' x; sleep 300 &", strings.Repeat("x", 50000)},
	} {
		var out bytes.Buffer
		cmd := h.command("exec", "-i", "web", "--", "sh", "-c", c.script)
		stdin, err := cmd.StdinPipe() // stays open
		must(t, err)
		r, w, err := blockingPipe()
		must(t, err)
		cmd.Stdout = w
		must(t, cmd.Start())
		w.Close()
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(&out, r)
		}()
		code := within(t, cmd)
		<-read
		stdin.Close()
		r.Close()
		if want := map[bool]int{true: 3}[name == "writes on"]; code != want {
			t.Errorf("%s: exit code %d", name, code)
		}
		if got := strings.ReplaceAll(out.String(), "noise\n", ""); !strings.HasPrefix(got, c.out) {
			t.Errorf("%s: %d bytes: %.80q", name, out.Len(), got)
		}
	}
	// They are the sandbox's own now, as they would be after a logout.
	if got := h.commands(); !slices.Contains(got, "sleep") {
		t.Errorf("nothing is left: %v", got)
	}
}

// A reader that goes away ends what writes, as a pipe of the host would.
func TestExecClosedPipe(t *testing.T) {
	h := execHost(t)
	for _, c := range [][]string{
		{"yes"},
		{"bash", "-c", "while :; do echo y; done"},
		{"perl", "-e", "while (1) { print qq(x\n) }"},
		{"sh", "-c", "yes | cat"},
		{"sh", "-c", "sleep 300 & yes"},
		{"find", "/usr", "/usr", "/usr"},
		{"bash", "-c", "while :; do echo y >&2; done"},
	} {
		var errs bytes.Buffer
		cmd := h.command(append([]string{"exec", "web", "--"}, c...)...)
		r, w, err := blockingPipe()
		must(t, err)
		cmd.Stdout, cmd.Stderr = w, &errs
		if strings.Contains(c[len(c)-1], ">&2") {
			cmd.Stdout, cmd.Stderr = nil, w
		}
		must(t, cmd.Start())
		w.Close()
		_, err = r.Read(make([]byte, 2))
		must(t, err)
		must(t, r.Close())
		if code := within(t, cmd); code != 128+int(unix.SIGPIPE) || errs.Len() > 0 {
			t.Errorf("%v: exit code %d, errors %.200q", c, code, errs.String())
		}
	}
	// A stream that can't take anything is told, whatever the command says.
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	for _, c := range []string{"echo", "yes"} {
		var errs bytes.Buffer
		cmd := h.command("exec", "web", "--", c)
		cmd.Stdout, cmd.Stderr = full, &errs
		must(t, cmd.Start())
		if code := within(t, cmd); code != exit.Failure || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("%s: exit code %d, %q", c, code, errs.String())
		}
	}
}

// What a command started ends when its client does, however that ends.
func TestExecClientDies(t *testing.T) {
	t.Parallel()
	h := execHost(t)
	ends := map[string]func(*exec.Cmd) error{
		"killed":  func(c *exec.Cmd) error { return c.Process.Kill() },
		"hung up": func(c *exec.Cmd) error { return c.Process.Signal(unix.SIGHUP) },
		"aborted": func(c *exec.Cmd) error { return c.Process.Signal(unix.SIGABRT) },
		"impatient": func(c *exec.Cmd) error {
			for range attach.Impatience {
				if err := c.Process.Signal(unix.SIGTERM); err != nil {
					return nil // that was enough
				}
				time.Sleep(50 * time.Millisecond) // two at once are one
			}
			return nil
		},
	}
	for name, end := range ends {
		for what, script := range map[string]string{
			"plain":     "exec sleep 300",
			"stubborn":  "trap '' HUP INT TERM; echo ready; while :; do sleep 1; done",
			"family":    "sleep 301 & setsid sleep 302 & (sleep 303; true); true",
			"stopped":   "kill -STOP $$",
			"with -t":   "sleep 300; true",
			"silent -i": "cat",
		} {
			if name == "impatient" {
				// The command ends by a signal then; its daemons are the sandbox's own.
				script = strings.ReplaceAll(script, "setsid ", "")
			}
			cmd := h.command("exec", "web", "--", "sh", "-c", script)
			switch what {
			case "with -t":
				if name == "impatient" {
					continue // keys are input there
				}
				x := newTerminal(t)
				cmd = x.run(h, "exec", "-it", "web", "--", "sh", "-c", script)
			case "silent -i":
				cmd = h.command("exec", "-i", "web", "--", "sh", "-c", script)
				_, err := cmd.StdinPipe()
				must(t, err)
				must(t, cmd.Start())
			default:
				must(t, cmd.Start())
			}
			// A family is whole before its end: what is forked while the group is
			// signalled may be missed, as by any kill.
			h.until(name+", "+what+": begins", func() bool {
				began := h.commands()
				return len(began) > 0 && (what != "family" || len(slices.DeleteFunc(began, func(c string) bool { return c != "sleep" })) == 3)
			})
			must(t, end(cmd))
			within(t, cmd)
			h.until(name+", "+what+": ends", func() bool { return len(h.commands()) == 0 })
		}
	}
}

// A client that stands still keeps its command; a terminal that is closed ends it.
func TestExecTerminalCloses(t *testing.T) {
	h := execHost(t)
	cmd := h.command("exec", "web", "--", "sleep", "300")
	must(t, cmd.Start())
	h.until("begins", func() bool { return len(h.commands()) == 1 })
	must(t, cmd.Process.Signal(unix.SIGSTOP))
	if got := h.commands(); len(got) != 1 {
		t.Errorf("of a client that was stopped: %v", got)
	}
	must(t, cmd.Process.Kill())
	within(t, cmd)
	for _, args := range [][]string{{"exec", "-it"}, {"exec", "-i"}, {"exec"}} {
		for _, controlling := range []bool{true, false} {
			pty, path, err := console.NewPty()
			must(t, err)
			tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
			must(t, err)
			cmd := h.command(append(args, "web", "--", "sh", "-c", "trap '' HUP; while :; do echo ready; sleep 0.1; done")...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
			// Without a controlling terminal there is no signal, only errors.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: controlling}
			must(t, cmd.Start())
			tty.Close()
			var shown []byte
			for !bytes.Contains(shown, []byte("ready")) {
				b := make([]byte, 100)
				n, err := pty.Read(b)
				must(t, err)
				shown = append(shown, b[:n]...)
			}
			must(t, pty.Close())
			within(t, cmd)
			h.until(fmt.Sprint(args, " ends"), func() bool { return len(h.commands()) == 0 })
		}
	}
}

// Many commands leave nothing: no process, no descriptor and no thread.
func TestExecLeavesNothing(t *testing.T) {
	t.Parallel()
	h := execHost(t)
	rec, _, err := h.store.Get("web")
	must(t, err)
	proc := "/proc/" + strconv.Itoa(rec.Sentry.PID)
	count := func(dir string) int {
		entries, err := os.ReadDir(filepath.Join(proc, dir))
		must(t, err)
		return len(entries)
	}
	run := func(n int) {
		for i := range n {
			cmd := h.command("exec", "web", "--", "sh", "-c", "sleep 300")
			if i%4 != 0 {
				must(t, h.command("exec", "web", "--", "true").Run())
				continue
			}
			must(t, cmd.Start())
			if i%8 == 0 { // at once, before it may have begun
				h.until("begins", func() bool { return len(h.commands()) > 0 })
			}
			must(t, cmd.Process.Kill())
			within(t, cmd)
		}
		h.until("commands end", func() bool { return len(h.commands()) == 0 })
	}
	run(40)
	files, threads := count("fd"), count("task")
	run(200)
	h.until("descriptors are closed", func() bool { return count("fd") <= files+4 })
	if now := count("task"); now > threads+24 {
		t.Errorf("%d threads after 200 commands, %d before", now, threads)
	}
}

// No stream of ours is changed or given away, whatever it is and whatever its flags.
func TestExecStreams(t *testing.T) {
	h := execHost(t)
	big := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	file := filepath.Join(t.TempDir(), "in")
	must(t, os.WriteFile(file, append([]byte("read already"), big...), 0o600))
	for _, nonblock := range []bool{false, true} {
		for name, pair := range map[string]func() (r, w *os.File, err error){"pipe": blockingPipe, "socket": func() (r, w *os.File, err error) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), err
		}} {
			in, feed, err1 := pair()
			drain, out, err2 := pair()
			must(t, err1)
			must(t, err2)
			must(t, unix.SetNonblock(int(in.Fd()), nonblock))
			must(t, unix.SetNonblock(int(out.Fd()), nonblock))
			cmd := h.command("exec", "-i", "web", "--", "cat")
			cmd.Stdin, cmd.Stdout = in, out
			must(t, cmd.Start())
			fed := make(chan struct{})
			go func() {
				defer close(fed)
				_, _ = feed.Write(big)
				// The end of input is told while output goes on.
				feed.Close()
				if name == "socket" {
					_ = unix.Shutdown(int(in.Fd()), unix.SHUT_RD)
				}
			}()
			got := make([]byte, len(big))
			_, err := io.ReadFull(drain, got)
			if code := within(t, cmd); code != 0 || err != nil || !bytes.Equal(got, big) {
				t.Errorf("%s, non-blocking %t: exit code %d, %v", name, nonblock, code, err)
			}
			for _, f := range []*os.File{in, out} {
				flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
				if err != nil || (flags&unix.O_NONBLOCK != 0) != nonblock {
					t.Errorf("%s, non-blocking %t: flags are %#x, %v", name, nonblock, flags, err)
				}
			}
			<-fed
			in.Close()
			out.Close()
			drain.Close()
		}
	}
	in, err := os.Open(file)
	must(t, err)
	defer in.Close()
	_, err = in.Seek(int64(len("read already")), io.SeekStart)
	must(t, err)
	cmd := h.command("exec", "-i", "web", "--", "md5sum")
	cmd.Stdin = in
	sum, err := cmd.Output()
	must(t, err)
	local := exec.Command("md5sum")
	local.Stdin = bytes.NewReader(big)
	want, err := local.Output()
	must(t, err)
	if !bytes.Equal(sum, want) {
		t.Errorf("md5sum of a file: %s, expected %s", sum, want)
	}
	// Closed streams are no error.
	for _, redirect := range []string{"<&-", ">&-", "2>&-", "<&- >&- 2>&-"} {
		sh := exec.Command("sh", "-c", "exec \"$0\" exec -i web -- sh -c 'cat; exit 4' </dev/null "+redirect, filepath.Join(binDir, "sandboxctl"))
		sh.Env = h.command().Env
		must(t, sh.Start())
		if code := within(t, sh); code != 4 {
			t.Errorf("%s: exit code %d", redirect, code)
		}
	}
}

// Signals are for the command: for all of what a terminal would reach. Those that
// this program was started to ignore are not.
func TestExecSignals(t *testing.T) {
	h := execHost(t)
	for sig, want := range map[syscall.Signal]int{unix.SIGINT: 130, unix.SIGTERM: 143, unix.SIGQUIT: 131, unix.SIGUSR1: 138} {
		cmd := h.command("exec", "web", "--", "sh", "-c", "sleep 300; true")
		must(t, cmd.Start())
		h.until("begins", func() bool { return slices.Contains(h.commands(), "sleep") })
		must(t, cmd.Process.Signal(sig))
		if code := within(t, cmd); code != want {
			t.Errorf("%v: exit code %d", sig, code)
		}
		// SIGUSR1 was for the shell alone.
		h.until("what it left has ended", func() bool {
			must(t, h.command("exec", "web", "--", "sh", "-c", "pkill -xf 'sleep 300'; true").Run())
			return len(h.commands()) == 0
		})
	}
	ignoring := exec.Command("sh", "-c", `trap '' HUP INT; exec "$0" exec web -- sh -c 'sleep 300; true'`, filepath.Join(binDir, "sandboxctl"))
	ignoring.Env = h.command().Env
	must(t, ignoring.Start())
	h.until("begins", func() bool { return slices.Contains(h.commands(), "sleep") })
	for range 2 * attach.Impatience {
		for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT} {
			must(t, ignoring.Process.Signal(sig))
		}
	}
	if got := h.commands(); !slices.Contains(got, "sleep") {
		t.Errorf("it was not ignored: %v", got)
	}
	must(t, ignoring.Process.Kill())
	within(t, ignoring)
}

// What a sandbox writes is harmless at a terminal, and untouched elsewhere.
func TestExecAtTerminal(t *testing.T) {
	h := execHost(t)
	const hostile = "\x1b]0;title\x07\x1b[2J\x1b[6n\u009b5n\x1bc \x1b[31mred\x1b[0m end"
	script := fmt.Sprintf("printf '%%s\\n' '%s'; printf '%%s\\n' '%s' >&2", hostile, hostile)
	x := newTerminal(t)
	cmd := x.run(h, "exec", "web", "--", "sh", "-c", script)
	if code := within(t, cmd); code != 0 {
		t.Errorf("exit code %d", code)
	}
	h.until("both", func() bool { return strings.Count(x.text(), " end\x1b[0m\r\n") == 2 })
	if text := x.text(); strings.ContainsAny(text, "\x07\u009b") || strings.Count(text, "\x1b") > 6 || !strings.Contains(text, "\x1b[31mred\x1b[0m") {
		t.Errorf("shown: %q", text)
	}
	out, err := h.command("exec", "web", "--", "sh", "-c", script).Output()
	if err != nil || string(out) != hostile+"\n" {
		t.Errorf("through a pipe: %q, %v", out, err)
	}
}
