// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/gofer"
)

// childEnv tells the test binary to be a process that gives up its privileges
// and then tries something: HOW WHAT [ARG].
const childEnv = "GOFER_TEST_CHILD"

// attempting is what it says right before it tries.
const attempting = "here it comes\n"

// Exit codes of such a process, beside being killed.
const (
	childDone   = 0
	childBroken = 1
	childDenied = 3 // EPERM or EACCES
)

// forbidden are attempts that a jailed gofer is killed for.
var forbidden = map[string]func(){
	"mount":    func() { _ = unix.Mount("none", "/", "tmpfs", 0, "") },
	"unshare":  func() { _ = unix.Unshare(unix.CLONE_NEWUSER) },
	"chroot":   func() { _ = unix.Chroot("/") },
	"chdir":    func() { _ = unix.Chdir("/") },
	"execve":   func() { _ = unix.Exec("/bin/true", []string{"true"}, nil) },
	"ptrace":   func() { _ = unix.PtraceAttach(1) },
	"internet": func() { _, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0) },
	"netlink":  func() { _, _ = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0) },
	"local":    func() { _, _ = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) },
	"handle":   func() { _, _ = unix.OpenByHandleAt(unix.AT_FDCWD, unix.NewFileHandle(1, make([]byte, 8)), 0) },
	"setuid":   func() { _, _, _ = unix.RawSyscall(unix.SYS_SETUID, 0, 0, 0) },
	"capset": func() {
		_ = unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &make([]unix.CapUserData, 2)[0])
	},
	"bpf":      func() { _, _, _ = unix.RawSyscall(unix.SYS_BPF, 0, 0, 0) },
	"module":   func() { _ = unix.InitModule(nil, "") },
	"pidfd":    func() { _, _ = unix.PidfdOpen(1, 0) },
	"setns":    func() { _ = unix.Setns(0, 0) },
	"reboot":   func() { _ = unix.Reboot(-1) },
	"io_uring": func() { _, _, _ = unix.RawSyscall(unix.SYS_IO_URING_SETUP, 1, 0, 0) },
	"executable": func() {
		_, _ = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	},
	"terminal": func() { _, _, _ = unix.RawSyscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, 0) },
	"tgkill":   func() { _, _, _ = unix.RawSyscall(unix.SYS_TGKILL, 1, 1, 0) },
}

// allowed are attempts of file service, on the file given.
var allowed = map[string]func(file string) error{
	"read": func(file string) error { return open(file, unix.O_RDONLY) },
	"chown": func(file string) error {
		return unix.Fchownat(unix.AT_FDCWD, file, 12345, 12345, 0)
	},
	"chmod": func(file string) error { return unix.Fchmodat(unix.AT_FDCWD, file, 0o600, 0) },
}

func open(file string, flags int) error {
	fd, err := unix.Openat(unix.AT_FDCWD, file, flags, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func childMain(args []string) int {
	// Being killed by the filter counts as a crash; no dump of it is wanted.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		fmt.Println(err)
		return childBroken
	}
	how, what, arg := args[0], args[1], ""
	if len(args) > 2 {
		arg = args[2]
	}
	if how == "prepared" {
		return waitAndTry(arg)
	}
	// A thread from before, which must lose the same.
	ready, attempt, result := make(chan struct{}), make(chan func() int), make(chan int)
	go func() {
		runtime.LockOSThread()
		close(ready)
		result <- (<-attempt)()
	}()
	<-ready
	runtime.LockOSThread()
	cfg := &gofer.Config{DirectFS: strings.Contains(how, "direct"), Mounts: []gofer.Mount{{ReadOnly: !strings.Contains(how, "writable")}}}
	err := limitPrivileges()
	switch {
	case err != nil:
	case strings.Contains(how, "capabilities"):
		err = setCapabilities(writerCaps)
	default:
		err = dropPrivileges(cfg)
	}
	if err != nil {
		fmt.Println(err)
		return childBroken
	}
	try := func() int {
		_, _ = unix.Write(1, []byte(attempting))
		if f := forbidden[what]; f != nil {
			f()
			return childDone
		}
		if what == "exec" {
			fmt.Println(unix.Exec("/bin/cat", []string{"cat", "/proc/self/status"}, nil))
			return childBroken
		}
		switch err := allowed[what](arg); {
		case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
			return childDenied
		case err != nil:
			fmt.Println(err)
			return childBroken
		}
		return childDone
	}
	if strings.Contains(how, "thread") {
		attempt <- try
		return <-result
	}
	return try()
}

// runChild runs such a process and returns how it ended.
func runChild(t *testing.T, args ...string) (syscall.WaitStatus, string) {
	t.Helper()
	requireRoot(t)
	bin, err := program()
	must(t, err)
	cmd := exec.Command(bin)
	cmd.Env = []string{childEnv + "=" + strings.Join(args, " ")} // no place for coverage: it could not be written
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || !strings.Contains(string(out), attempting) {
		t.Fatalf("%q did not come as far as trying: %v\n%s", args, err, out)
	}
	return cmd.ProcessState.Sys().(syscall.WaitStatus), string(out)
}

// What is forbidden kills, on every thread and in every kind of gofer.
func TestForbidden(t *testing.T) {
	t.Parallel()
	for what := range forbidden {
		for _, how := range []string{"readonly", "writable,direct", "readonly,thread"} {
			if s, out := runChild(t, how, what); !s.Signaled() || s.Signal() != unix.SIGSYS {
				t.Errorf("%s in a gofer (%s): exit %d, signal %v\n%s", what, how, s.ExitStatus(), s.Signal(), out)
			}
		}
	}
}

// What a gofer may do with files of others: all can read, only one with a
// writable mount can change.
func TestFilePrivileges(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	for _, c := range []struct {
		how, what string
		code      int
	}{
		{"readonly", "read", childDone},
		{"readonly", "chown", childDenied},
		{"readonly", "chmod", childDenied},
		{"readonly,thread", "chown", childDenied},
		{"readonly,direct", "chown", childDenied},
		{"writable", "read", childDone},
		{"writable", "chown", childDone},
		{"writable", "chmod", childDone},
		{"writable,thread", "chmod", childDone},
	} {
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0o755))
		file := filepath.Join(dir, "file")
		must(t, os.WriteFile(file, nil, 0o600))
		must(t, os.Chmod(file, 0))
		must(t, os.Chown(file, 54321, 54321))
		if s, out := runChild(t, c.how, c.what, file); s.Signaled() || s.ExitStatus() != c.code {
			t.Errorf("%s in a gofer (%s): exit %d, signal %v, expected %d\n%s", c.what, c.how, s.ExitStatus(), s.Signal(), c.code, out)
		}
	}
}

// Root that executes a program has all capabilities, were it not for the
// bounding set.
func TestNoCapabilitiesByExec(t *testing.T) {
	t.Parallel()
	s, out := runChild(t, "capabilities", "exec")
	if s.ExitStatus() != 0 || !strings.Contains(out, "Uid:\t0") {
		t.Fatalf("exit %d\n%s", s.ExitStatus(), out)
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if !strings.Contains(out, set+":\t0000000000000000\n") {
			t.Errorf("%s is not empty:\n%s", set, out)
		}
	}
}

// A build that can't take privileges from all threads does not take them from
// some.
func TestDropWithCgo(t *testing.T) {
	t.Parallel()
	if gofer.CanRun() == nil {
		return // TestGofer shows that this build takes them from all
	}
	before := capabilities(t)
	if err := limitPrivileges(); !errors.Is(err, unix.ENOTSUP) {
		t.Errorf("%v, expected ENOTSUP", err)
	}
	if after := capabilities(t); after != before {
		t.Errorf("%v became %v", before, after)
	}
}

func capabilities(t *testing.T) [2]unix.CapUserData {
	t.Helper()
	var data [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		t.Fatal(errno)
	}
	return data
}

// The sets are what a file server needs and no more.
func TestCapabilitySets(t *testing.T) {
	t.Parallel()
	if readerCaps&^writerCaps != 0 {
		t.Error("a reader may what a writer may not")
	}
	for name, c := range map[string]uint{
		"SYS_ADMIN": unix.CAP_SYS_ADMIN, "SYS_PTRACE": unix.CAP_SYS_PTRACE, "MKNOD": unix.CAP_MKNOD, "SYS_CHROOT": unix.CAP_SYS_CHROOT,
		"SETUID": unix.CAP_SETUID, "SETGID": unix.CAP_SETGID, "SETFCAP": unix.CAP_SETFCAP, "SETPCAP": unix.CAP_SETPCAP, "KILL": unix.CAP_KILL,
		"NET_ADMIN": unix.CAP_NET_ADMIN, "SYS_RAWIO": unix.CAP_SYS_RAWIO, "SYS_MODULE": unix.CAP_SYS_MODULE, "BPF": unix.CAP_BPF,
	} {
		if uint64(writerCaps)&(1<<c) != 0 {
			t.Errorf("a gofer keeps CAP_%s", name)
		}
		if uint64(mountCaps)&(1<<c) != 0 && name != "SYS_ADMIN" {
			t.Errorf("a gofer that waits has CAP_%s", name)
		}
	}
	if uint64(readerCaps)&(1<<unix.CAP_CHOWN|1<<unix.CAP_FOWNER) != 0 {
		t.Error("a reader may change files")
	}
}
