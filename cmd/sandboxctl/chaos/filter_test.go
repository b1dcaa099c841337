// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/companion"
)

// System calls of the daemon are made to fail by a seccomp filter that asks this
// process. strace would count the calls of each thread by itself, so that "the
// third" is another one in every run, and would stop at every call of every
// child. This way all threads of the daemon are counted together, sentries and
// gofers, which inherit the filter, are let through by their pids, and a fault
// ends without an end of the daemon.

// filteredName is the name under which this test binary puts a filter on itself
// and becomes the program that its arguments name.
const filteredName = "sandboxctl-chaos-filtered"

// filteredFD is where it sends the descriptor of the filter to.
const filteredFD = 3

// call is a system call that can be made to fail.
type call struct {
	name string
	nr   uint32
}

// calls are those that change something, or get something that changes later.
var calls = []call{
	{"openat", unix.SYS_OPENAT},
	{"openat2", unix.SYS_OPENAT2},
	{"write", unix.SYS_WRITE},
	{"pwrite64", unix.SYS_PWRITE64},
	{"fsync", unix.SYS_FSYNC},
	{"renameat", unix.SYS_RENAMEAT},
	{"renameat2", unix.SYS_RENAMEAT2},
	{"fsetxattr", unix.SYS_FSETXATTR},
	{"mkdirat", unix.SYS_MKDIRAT},
	{"unlinkat", unix.SYS_UNLINKAT},
	{"ftruncate", unix.SYS_FTRUNCATE},
	{"fchmod", unix.SYS_FCHMOD},
	{"fchown", unix.SYS_FCHOWN},
	{"fcntl", unix.SYS_FCNTL},
	{"open_tree", unix.SYS_OPEN_TREE},
	{"move_mount", unix.SYS_MOVE_MOUNT},
	{"mount_setattr", unix.SYS_MOUNT_SETATTR},
	{"mount", unix.SYS_MOUNT},
	{"umount2", unix.SYS_UMOUNT2},
	{"fsopen", unix.SYS_FSOPEN},
	{"fsconfig", unix.SYS_FSCONFIG},
	{"fsmount", unix.SYS_FSMOUNT},
	{"unshare", unix.SYS_UNSHARE},
	{"setns", unix.SYS_SETNS},
	{"clone", unix.SYS_CLONE},
	{"clone3", unix.SYS_CLONE3},
	{"pidfd_open", unix.SYS_PIDFD_OPEN},
	{"pidfd_send_signal", unix.SYS_PIDFD_SEND_SIGNAL},
	{"waitid", unix.SYS_WAITID},
	{"inotify_init1", unix.SYS_INOTIFY_INIT1},
	{"inotify_add_watch", unix.SYS_INOTIFY_ADD_WATCH},
	{"epoll_create1", unix.SYS_EPOLL_CREATE1},
	{"epoll_ctl", unix.SYS_EPOLL_CTL},
	{"eventfd2", unix.SYS_EVENTFD2},
	{"socket", unix.SYS_SOCKET},
	{"connect", unix.SYS_CONNECT},
	{"bind", unix.SYS_BIND},
	{"socketpair", unix.SYS_SOCKETPAIR},
	{"pipe2", unix.SYS_PIPE2},
	{"memfd_create", unix.SYS_MEMFD_CREATE},
	{"flock", unix.SYS_FLOCK},
	{"getdents64", unix.SYS_GETDENTS64},
	{"newfstatat", unix.SYS_NEWFSTATAT},
	{"fstatfs", unix.SYS_FSTATFS},
	{"statx", unix.SYS_STATX},
	{"pidfd_getfd", unix.SYS_PIDFD_GETFD},
}

// program is the filter: the calls are for the listener, all others pass. So do
// clones other than Go's on the way to another program: it can't do without its
// threads, and a sentry makes those of its guests with a debugger's help, whose
// calls must not wait for anybody.
func program() []unix.SockFilter {
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		ret  = unix.BPF_RET | unix.BPF_K
		// Offsets in struct seccomp_data.
		number, firstArg = 0, 16
	)
	p := []unix.SockFilter{
		{Code: load, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CLONE, Jf: 4},
		{Code: load, K: firstArg},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.CLONE_VFORK, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	for i, c := range calls {
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: c.nr, Jt: uint8(len(calls) - i)})
	}
	return append(p, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF})
}

// filtered filters this thread, sends the listener away and becomes another
// program; it returns only if it can't. Until somebody listens, no call that is
// filtered may be made.
func filtered() error {
	runtime.LockOSThread()
	path, args, env := os.Args[1], os.Args[2:], os.Environ()
	p := program()
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("filter: %w", errno)
	}
	if err := unix.Sendmsg(filteredFD, []byte{'.'}, unix.UnixRights(int(fd)), nil, 0); err != nil {
		return fmt.Errorf("send filter: %w", err)
	}
	unix.CloseOnExec(filteredFD)
	return fmt.Errorf("execute %s: %w", path, unix.Exec(path, args, env))
}

// seccompNotif and seccompResp are struct seccomp_notif and _resp of
// linux/seccomp.h.
type seccompNotif struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type seccompResp struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// injector decides which calls of one process fail.
type injector struct {
	t        testing.TB
	pid      int
	listener int
	done     chan struct{}

	mu     sync.Mutex
	counts map[string]int
	fail   func(call string, n int, arg argument) unix.Errno // 0: it does not
	failed []happened                                        // what did
}

// happened is a call that was made to fail.
type happened struct{ call, path string }

// argument of a call, read when it is asked for.
type argument struct {
	pid  int
	call *seccompNotif
}

// path is what the call is about: a path, or what a descriptor is of.
func (a argument) path() string {
	switch uint32(a.call.nr) {
	case unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_NEWFSTATAT, unix.SYS_STATX:
		return a.below(a.call.args[0], a.call.args[1])
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return a.below(a.call.args[2], a.call.args[3])
	case unix.SYS_INOTIFY_ADD_WATCH:
		return a.text(a.call.args[1])
	}
	return a.fd(a.call.args[0])
}

func (a argument) below(dir, name uint64) string {
	s := a.text(name)
	if filepath.IsAbs(s) || int32(dir) == unix.AT_FDCWD {
		return s
	}
	return filepath.Join(a.fd(dir), s)
}

func (a argument) fd(n uint64) string {
	s, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", a.pid, int32(n)))
	if err != nil {
		return fmt.Sprintf("descriptor %d", int32(n))
	}
	return s
}

func (a argument) text(at uint64) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", a.pid))
	if err != nil {
		return "?"
	}
	defer f.Close()
	var b [unix.PathMax]byte
	n, _ := f.ReadAt(b[:], int64(at)) // what there is up to the end of the page
	s, _, _ := strings.Cut(string(b[:n]), "\x00")
	return s
}

// inject starts the daemon of a world with an injector.
func (w *world) inject(fail func(call string, n int, arg argument) unix.Errno) *injector {
	w.t.Helper()
	in := injectInto(w.t, fail, func(how func(*exec.Cmd)) int {
		w.startHow(how)
		return w.daemon.cmd.Process.Pid
	})
	w.open()
	return in
}

// injectInto has a program started with an injector: start starts its command, which how
// changes, and returns its pid.
func injectInto(t testing.TB, fail func(call string, n int, arg argument) unix.Errno, start func(how func(*exec.Cmd)) int) *injector {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer unix.Close(pair[0])
	in := &injector{t: t, done: make(chan struct{}), counts: map[string]int{}, fail: fail}
	self, err := os.Executable()
	must(t, err)
	in.pid = start(func(cmd *exec.Cmd) {
		cmd.Args = append([]string{filteredName, cmd.Path}, cmd.Args...)
		cmd.Path = self
		cmd.ExtraFiles = []*os.File{theirs}
	})
	must(t, theirs.Close())
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], b[:], oob, unix.MSG_CMSG_CLOEXEC)
	must(t, err)
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	must(t, err)
	if len(msgs) != 1 {
		t.Fatal("no filter")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	must(t, err)
	in.listener = fds[0]
	go in.listen()
	return in
}

// listen answers until there is no process left that the filter is on.
func (in *injector) listen() {
	defer close(in.done)
	defer unix.Close(in.listener)
	var n seccompNotif
	for {
		fds := []unix.PollFd{{Fd: int32(in.listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			continue
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			return
		}
		n = seccompNotif{}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(in.listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // the process that asked was killed
		}
		r := seccompResp{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if errno := in.decide(&n); errno != 0 {
			r.flags, r.error = 0, -int32(errno)
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(in.listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
	}
}

func (in *injector) decide(n *seccompNotif) syscall.Errno {
	i := slices.IndexFunc(calls, func(c call) bool { return c.nr == uint32(n.nr) })
	if i < 0 {
		return 0
	}
	name, arg := calls[i].name, argument{pid: in.pid, call: n}
	if _, err := os.Lstat(fmt.Sprintf("/proc/%d/task/%d", in.pid, n.pid)); err != nil {
		if !isPuller(n.pid) {
			return 0 // of another child
		}
		name, arg.pid = ofPuller+name, int(n.pid)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.counts[name]++
	if in.fail == nil {
		return 0
	}
	errno := in.fail(name, in.counts[name], arg)
	if errno != 0 {
		in.failed = append(in.failed, happened{name, arg.path()})
	}
	return errno
}

// ofPuller begins the names of calls that the programs make which pull images for the
// daemon. All of them are counted together.
const ofPuller = "image."

// isPuller says of a thread that its program pulls an image.
func isPuller(tid uint32) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", tid))
	return err == nil && strings.HasPrefix(string(b), companion.ImageName+"\x00")
}

// set changes what fails from now on; nil: nothing.
func (in *injector) set(fail func(call string, n int, arg argument) unix.Errno) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.fail = fail
}

// faults are those that there were.
func (in *injector) faults() []happened {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.failed)
}

// total is how many calls there were of each.
func (in *injector) total() map[string]int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return maps.Clone(in.counts)
}
