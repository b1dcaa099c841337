// SPDX-License-Identifier: Apache-2.0

package filters

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/bpf"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/runsc/fsgofer/filter"

	"sandboxctl.dev/gofer/precompiled"
)

// The programs are what gVisor would compile for the gofer, instruction by
// instruction: generate.go compares each, and writes what is committed. It is built
// without the race detector, which has rules of its own.
func TestPrograms(t *testing.T) {
	t.Parallel()
	generate := filepath.Join(t.TempDir(), "generate")
	build := exec.Command("go", "build", "-o", generate, "generate.go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(generate)
	cmd.Stderr = os.Stderr
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, programs) {
		t.Error("programs.json is not what this gVisor compiles; run `go generate ./gofer/server/filters` and commit it")
	}
	if n := bytes.Count(got, []byte("\n")); n != 2 {
		t.Errorf("%d programs", n)
	}
}

// Every kind of gofer has its program, under the name by which gVisor looks for it.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, directFS := range []bool{false, true} {
		opt := filter.Options{DirectFS: directFS, LisafsNeeded: true}
		p, err := precompiled.Find(programs, kind(opt))
		// With the race detector gVisor adds to its rules, and looks for another one.
		if key := strings.Replace(opt.ConfigKey(), "Instrumentation=true", "Instrumentation=false", 1); err != nil || p.Name != key {
			t.Errorf("%s: %s, %v", key, p.Name, err)
		}
	}
}

// Gofers share a network namespace, in which none may reach another: a gofer makes no
// socket but one end of a connected pair, gives none a name, listens on none, connects
// none and enters no namespace. What it may do besides is the control of this test.
func TestNoSockets(t *testing.T) {
	t.Parallel()
	const allow = uint32(linux.SECCOMP_RET_ALLOW)
	for _, directFS := range []bool{false, true} {
		program, err := precompiled.Find(programs, kind(filter.Options{DirectFS: directFS, LisafsNeeded: true}))
		if err != nil {
			t.Fatal(err)
		}
		values := precompiledseccomp.Values{}
		for name := range program.VarOffsets {
			values[name] = 0
		}
		code, err := program.RenderInstructions(values)
		if err != nil {
			t.Fatal(err)
		}
		compiled, err := bpf.Compile(code, false)
		if err != nil {
			t.Fatal(err)
		}
		answer := func(nr uint32, args ...uint64) uint32 {
			// struct seccomp_data: number, architecture, instruction, arguments.
			data := make([]byte, 64)
			binary.NativeEndian.PutUint32(data, nr)
			binary.NativeEndian.PutUint32(data[4:], linux.AUDIT_ARCH_X86_64)
			for i, a := range args {
				binary.NativeEndian.PutUint64(data[16+8*i:], a)
			}
			out, err := bpf.Exec[bpf.NativeEndian](compiled, bpf.Input(data))
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		for nr, name := range map[uint32]string{
			unix.SYS_BIND: "bind", unix.SYS_CONNECT: "connect", unix.SYS_LISTEN: "listen", unix.SYS_SENDTO: "sendto", unix.SYS_SENDMMSG: "sendmmsg",
			unix.SYS_SETNS: "setns", unix.SYS_UNSHARE: "unshare", unix.SYS_IO_URING_SETUP: "io_uring_setup", unix.SYS_PIDFD_GETFD: "pidfd_getfd",
		} {
			if answer(nr) == allow {
				t.Errorf("direct access %t: %s is allowed", directFS, name)
			}
		}
		for _, family := range []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET, unix.AF_VSOCK, unix.AF_ALG} {
			for _, kind := range []uint64{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET, unix.SOCK_RAW} {
				for _, flags := range []uint64{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK} {
					if answer(unix.SYS_SOCKET, family, kind|flags) == allow {
						t.Errorf("direct access %t: socket(%d, %#x) is allowed", directFS, family, kind|flags)
					}
					pair := family == unix.AF_UNIX && kind == unix.SOCK_SEQPACKET && flags == unix.SOCK_CLOEXEC
					if got := answer(unix.SYS_SOCKETPAIR, family, kind|flags); (got == allow) != pair {
						t.Errorf("direct access %t: socketpair(%d, %#x) is answered %#x", directFS, family, kind|flags, got)
					}
				}
			}
		}
	}
}

// gVisor gets the program in process 1, for which it was compiled, and in no other.
func TestUse(t *testing.T) {
	t.Parallel()
	err := Use(filter.Options{LisafsNeeded: true})
	if n := len(filter.ListPrecompiled()); os.Getpid() == 1 && (err != nil || n != 1) || os.Getpid() != 1 && (err == nil || n != 0) {
		t.Fatalf("process %d: %d programs, %v", os.Getpid(), n, err)
	}
	if os.Getpid() == 1 {
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestUse$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
