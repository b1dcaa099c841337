// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// bootDeadline bounds the time from power on to the agent's first word. It
	// takes 15 s on an idle machine.
	bootDeadline = 6 * time.Minute
	// commandDeadline bounds a command that does not wait for anything.
	commandDeadline = 4 * time.Minute
)

// machine is one virtual machine that is switched on.
type machine struct {
	t       *testing.T
	cmd     *exec.Cmd
	ended   chan struct{} // closed when qemu has been waited for
	console string        // file of the first serial line
	// agent is the second serial line, at whose other end a shell carries out
	// commands.
	agent  net.Conn
	lines  *bufio.Reader
	number int
}

// powerOn starts a machine whose first disk is the image, and waits until its
// agent takes commands. What it writes to this disk is gone when it is off.
// Other disks are vdb, vdc, …
func powerOn(t *testing.T, disks ...*disk) *machine {
	t.Helper()
	return powerOnWith(t, "", disks...)
}

// powerOnWith adds something to the kernel's command line.
func powerOnWith(t *testing.T, kernelArgs string, disks ...*disk) *machine {
	t.Helper()
	m := &machine{t: t, ended: make(chan struct{}), console: filepath.Join(t.TempDir(), "console.log")}
	// Every file is handed over open: there is no path that could be left behind.
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	give := func(f *os.File) int {
		files = append(files, f)
		return len(files) + 2
	}
	args := []string{
		// What a newer processor has to offer, programs use, and it is emulated: with
		// all of it a start of a sandbox takes half as long again.
		"-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2", "-m", "3072",
		"-nodefaults", "-no-user-config", "-display", "none",
		"-kernel", filepath.Join(imageDir, "vmlinuz"), "-initrd", filepath.Join(imageDir, "initrd"),
		// A panic is the end of the machine, not a machine that hangs. The
		// modules are for hardware that it has not and take seconds to load; what
		// keeps processors from guessing costs seconds where nothing guesses. On a busy
		// host the interrupts of the timer come late: a kernel that tests for them
		// takes the timer for broken, and hangs.
		"-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1 no_timer_check mitigations=off module_blacklist=kvm,kvm_amd,kvm_intel,ghash_clmulni_intel,aesni_intel,sha512_ssse3,crc32_pclmul,crct10dif_pclmul " + kernelArgs,
		"-serial", "file:" + m.console,
	}
	root, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(rootImage.Fd())))
	must(t, err)
	args = append(args, "-add-fd", fmt.Sprintf("fd=%d,set=1", give(root)), "-drive", "if=virtio,format=raw,file=/dev/fdset/1,snapshot=on")
	here, there := socketPair(t)
	args = append(args, "-chardev", fmt.Sprintf("socket,id=agent,fd=%d", give(there)), "-serial", "chardev:agent")
	for _, d := range disks {
		mine, its := socketPair(t)
		d.attach(mine)
		// The guest is told that the disk has a write cache, and qemu has none.
		args = append(args, "-drive", fmt.Sprintf("if=virtio,format=raw,cache.direct=on,cache.no-flush=off,file.driver=nbd,file.server.type=fd,file.server.str=%d", give(its)))
	}
	m.agent, err = net.FileConn(here)
	must(t, err)
	here.Close()
	m.lines = bufio.NewReader(m.agent)
	m.cmd = exec.Command("qemu-system-x86_64", args...)
	m.cmd.ExtraFiles = files
	out, err := os.Create(filepath.Join(t.TempDir(), "qemu.log"))
	must(t, err)
	defer out.Close()
	m.cmd.Stdout, m.cmd.Stderr = out, out
	m.start()
	t.Cleanup(func() {
		m.powerOff()
		if qemu, console := tail(out.Name()), tail(m.console); t.Failed() && qemu+console != "" {
			t.Logf("qemu: %s\nconsole: %s", tail(out.Name()), tail(m.console))
		}
	})
	began := time.Now()
	m.waitBoot()
	t.Logf("the machine booted in %s", time.Since(began).Round(time.Second))
	return m
}

// start starts qemu, which ends with this test in any case: the kernel kills it
// when the thread that started it ends, which is when the test process does or
// qemu has been waited for.
func (m *machine) start() {
	m.t.Helper()
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setsid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := m.cmd.Start()
		started <- err
		if err == nil {
			_ = m.cmd.Wait() // the signal that ended it
		}
		close(m.ended)
	}()
	must(m.t, <-started)
}

// powerOff ends qemu at once, as a power cut does.
func (m *machine) powerOff() {
	_ = m.cmd.Process.Kill() // it may have ended
	<-m.ended
	m.agent.Close()
}

func socketPair(t *testing.T) (here, there *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	return os.NewFile(uintptr(fds[0]), "here"), os.NewFile(uintptr(fds[1]), "there")
}

// waitBoot waits for the first word of the agent.
func (m *machine) waitBoot() {
	m.t.Helper()
	must(m.t, m.agent.SetReadDeadline(time.Now().Add(bootDeadline)))
	for {
		fields, err := m.line()
		if err != nil {
			m.t.Fatalf("the machine has not booted: %v", err)
		}
		if fields[0] == "ready" {
			return
		}
	}
}

// reboot has systemd reboot the machine, which may answer before.
func (m *machine) reboot() {
	m.t.Helper()
	if out, err := m.try("systemctl reboot", bootDeadline); errors.Is(err, errBooted) {
		return
	} else if err != nil {
		m.t.Fatalf("reboot: %v: %s", err, out)
	}
	m.waitBoot()
}

// line is the next one of the agent, without what else a machine that boots
// writes to a serial line.
func (m *machine) line() ([]string, error) {
	for {
		l, err := m.lines.ReadString('\n')
		if err != nil {
			return nil, err
		}
		_, l, ok := strings.Cut(l, "agent ")
		if fields := strings.Fields(l); ok && len(fields) > 0 {
			return fields, nil
		}
	}
}

// errSilent is the error of a command whose end is not known: the machine is
// off, or the deadline is over.
var errSilent = errors.New("no answer")

// errBooted is the error of a command during which the machine has rebooted.
var errBooted = errors.New("the machine has rebooted")

// exitError is that of a command that failed.
type exitError struct {
	code   int
	output string
}

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d: %s", e.code, e.output) }

// try runs a command of the shell in the machine. Standard error is part of the
// output.
func (m *machine) try(command string, within time.Duration) (string, error) {
	m.number++
	must(m.t, m.agent.SetDeadline(time.Now().Add(within)))
	if _, err := fmt.Fprintf(m.agent, "%d %s\n", m.number, base64.StdEncoding.EncodeToString([]byte(command))); err != nil {
		return "", fmt.Errorf("%w: %w", errSilent, err)
	}
	for {
		fields, err := m.line()
		if err != nil {
			return "", fmt.Errorf("%w within %s: %w", errSilent, within, err)
		}
		if fields[0] == "ready" {
			return "", errBooted
		}
		if len(fields) < 2 || fields[0] != strconv.Itoa(m.number) {
			continue
		}
		code, err := strconv.Atoi(fields[1])
		must(m.t, err)
		out, err := base64.StdEncoding.DecodeString(strings.Join(fields[2:], ""))
		must(m.t, err)
		text := strings.TrimSpace(string(out))
		if code != 0 {
			return text, &exitError{code, text}
		}
		return text, nil
	}
}

// run runs a command that must succeed.
func (m *machine) run(command string) string {
	m.t.Helper()
	return m.runWithin(command, commandDeadline)
}

func (m *machine) runWithin(command string, within time.Duration) string {
	m.t.Helper()
	out, err := m.try(command, within)
	if err != nil {
		m.t.Fatalf("%s\n%s: %v", m.explain(), command, err)
	}
	return out
}

// explain is what the machine can tell of a failure. What failed is said after it: of a
// long output the end is seen first.
func (m *machine) explain() string {
	out, err := m.try("sandboxctl get -o wide; sandboxctl events | tail -n 30; sandboxctl doctor; journalctl -b -u sandboxctl --no-pager -o cat | tail -n 60", commandDeadline)
	return fmt.Sprintf("%s\n%v", out, err)
}

func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-3000):])
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
