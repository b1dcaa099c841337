// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const up = "../../../../../../../../../../../../../../../.."

// escapes looks for the canary.
func (r report) escapes(a *args) {
	try := func(what, path string) { r.try("canary "+what, regular(path)) }
	try("by its path", a.Canary)
	try("above the root", up+a.Canary)
	for _, p := range []string{"/proc/1/root", "/proc/1/cwd", "/proc/self/root", "/proc/self/cwd", "/proc/thread-self/root", "/proc/2/root"} {
		try(p, p+a.Canary)
		try("above "+p, p+"/"+up+a.Canary)
	}
	// Of every descriptor there is: ".." of a directory, or of what holds it.
	for fd := range 64 {
		path := fmt.Sprintf("/proc/self/fd/%d", fd)
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		for _, suffix := range []string{"/" + up + a.Canary, up + a.Canary} {
			if err := regular(path + suffix); err == nil {
				r.try(fmt.Sprintf("canary above descriptor %d", fd), nil)
			}
			f, err := unix.Openat(fd, suffix[1:], unix.O_RDONLY|unix.O_NONBLOCK, 0)
			if err == nil {
				r.try(fmt.Sprintf("canary at descriptor %d", fd), nil)
				unix.Close(f)
			}
		}
	}
	r.try("canary by handle", byHandle())
	cmd := exec.Command("/proc/self/exe", "chroot")
	cmd.Env = []string{"CANARY=" + a.Canary}
	out, err := cmd.CombinedOutput()
	r.add("try", "canary out of a chroot: %s %v", strings.TrimSpace(string(out)), err)
	for _, p := range []string{
		"/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/port", "/dev/sda", "/dev/vda", "/dev/loop0", "/dev/loop-control", "/dev/mapper/control", "/dev/kvm", "/dev/fuse", "/dev/net/tun",
		"/proc/kcore", "/proc/kmsg", "/proc/kallsyms", "/proc/keys", "/proc/sched_debug", "/proc/timer_list", "/proc/sysrq-trigger", "/proc/config.gz", "/proc/sys/kernel/core_pattern",
		"/sys/kernel/debug", "/sys/kernel/security", "/sys/fs/bpf", "/sys/firmware", "/sys/kernel/uevent_helper", "/run/docker.sock", "/var/run/docker.sock",
		"/run/systemd/private", "/etc/shadow", "/etc/gshadow", "/etc/machine-id", "/etc/ssh", "/etc/sandboxctl", "/var/lib/sandboxctl", "/root/.ssh", "/etc/localtime",
	} {
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			unix.Close(fd)
		}
		r.try("open "+p, err)
	}
}

// leaveChroot is the classic: a chroot below the working directory, which then
// climbs.
func leaveChroot(canary string) string {
	dir, err := os.MkdirTemp("/tmp", "chroot-")
	if err != nil {
		if dir, err = os.MkdirTemp("/dev/shm", "chroot-"); err != nil {
			return "no directory: " + result(err)
		}
	}
	if err := unix.Chroot(dir); err != nil {
		return "chroot: " + result(err)
	}
	for range 64 {
		_ = unix.Chdir("..") // as far as it goes
	}
	_ = unix.Chroot(".") // it must not matter
	return result(regular(strings.TrimPrefix(canary, "/")))
}

// byHandle opens by file handle, which on a host with CAP_DAC_READ_SEARCH gets
// out of any mount namespace.
func byHandle() error {
	h := unix.NewFileHandle(1, []byte{2, 0, 0, 0, 0, 0, 0, 0}) // the root of most filesystems
	for _, p := range []string{"/", "/mnt"} {
		dir, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			continue
		}
		fd, err := unix.OpenByHandleAt(dir, h, unix.O_RDONLY)
		unix.Close(dir)
		if err != nil {
			return err
		}
		unix.Close(fd)
	}
	return nil
}

// volume tries what the test has put into the tree served at /mnt, and to put
// things there itself.
func (r report) volume(a *args) {
	if _, err := os.Lstat("/mnt/inside"); err != nil {
		r.add("volume", "none: %s", result(err))
		r.writes("/", a.Tag)
		return
	}
	is := func(what string, err error) { r.add("volume", "%s: %s", what, result(err)) }
	for _, link := range []string{"absolute", "relative", "tree", "procfd"} {
		p := "/mnt/" + link
		if link == "tree" {
			p += a.Canary
		}
		is("canary by link "+link, regular(p))
	}
	for _, n := range []string{"fifo", "null", "mem", "disk", "socket"} {
		for mode, flags := range map[string]int{"read": unix.O_RDONLY, "write": unix.O_WRONLY, "both": unix.O_RDWR} {
			fd, err := unix.Open("/mnt/"+n, flags|unix.O_NONBLOCK, 0)
			if err == nil {
				unix.Close(fd)
			}
			is(mode+" "+n, err)
		}
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Connect(s, &unix.SockaddrUnix{Name: "/mnt/socket"})
		unix.Close(s)
	}
	is("connect socket", err)
	cmd := exec.Command("/mnt/setuid", "euid")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}}
	}
	out, err := cmd.Output()
	r.add("volume", "user of a set-user-ID program: %s %v", strings.TrimSpace(string(out)), err)
	// A new socket in the tree is the sandbox's own, not one of the host's.
	if s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
		is("bind a socket", unix.Bind(s, &unix.SockaddrUnix{Name: "/mnt/made-" + a.Tag + "-socket"}))
		unix.Close(s)
	}
	r.writes("/mnt", a.Tag)
	r.writes("/", a.Tag)
}

// writes tries to make things in a directory.
func (r report) writes(dir, tag string) {
	is := func(what string, err error) { r.add("write", "%s %s: %s", dir, what, result(err)) }
	p := func(n string) string { return filepath.Join(dir, "made-"+tag+"-"+n) }
	fd, err := unix.Open(p("file"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	is("file", err)
	fd, err = unix.Open(p("setuid"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o755)
	if err == nil {
		err = unix.Fchmod(fd, 0o4755)
		unix.Close(fd)
	}
	is("set-user-ID file", err)
	is("owner", unix.Lchown(p("file"), 4321, 4321))
	is("file capabilities", unix.Setxattr(p("file"), "security.capability", []byte{1, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0}, 0))
	is("trusted attribute", unix.Setxattr(p("file"), "trusted.overlay.opaque", []byte("y"), 0))
	is("user attribute", unix.Setxattr(p("file"), "user.x", []byte("y"), 0))
	is("character device", unix.Mknod(p("char"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 1))))
	is("block device", unix.Mknod(p("block"), unix.S_IFBLK|0o666, int(unix.Mkdev(7, 0))))
	is("whiteout", unix.Mknod(p("whiteout"), unix.S_IFCHR, 0))
	is("fifo", unix.Mkfifo(p("fifo"), 0o666))
	is("link out", unix.Symlink("/etc/shadow", p("link")))
	is("hard link", unix.Link(p("file"), p("hard")))
	fd, err = unix.Open(p("char"), unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == nil {
		unix.Close(fd)
	}
	is("open the device", err)
}

// kept is what system calls were given the address of.
var kept [][]byte

// kernel tries system calls that would be a way to the kernel or other
// processes, on a host.
func (r report) kernel() {
	call := func(what string, nr uintptr, a ...uintptr) {
		var v [6]uintptr
		copy(v[:], a)
		_, _, errno := unix.Syscall6(nr, v[0], v[1], v[2], v[3], v[4], v[5])
		if errno != 0 {
			r.try(what, errno)
			return
		}
		r.try(what, nil)
	}
	str := func(s string) uintptr {
		b := append([]byte(s), 0)
		kept = append(kept, b)
		return uintptr(unsafe.Pointer(&b[0]))
	}
	zero := str(string(make([]byte, 4096)))
	r.try("mount tmpfs", undo(unix.Mount("none", "/sys", "tmpfs", 0, ""), "/sys"))
	r.try("mount proc", undo(unix.Mount("none", "/sys", "proc", 0, ""), "/sys"))
	r.try("mount bind", undo(unix.Mount("/proc", "/sys", "", unix.MS_BIND, ""), "/sys"))
	r.try("mount device", undo(unix.Mount("/dev/sda1", "/sys", "ext4", 0, ""), "/sys"))
	r.try("mount overlay", undo(unix.Mount("none", "/sys", "overlay", 0, "lowerdir=/"), "/sys"))
	r.try("mount cgroup", undo(unix.Mount("none", "/sys", "cgroup", 0, "memory"), "/sys"))
	r.try("remount root", unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	r.try("pivot root", unix.PivotRoot("/proc", "/proc/sys"))
	r.try("host name", sameName())
	call("open_tree", unix.SYS_OPEN_TREE, ^uintptr(99), str("/"), unix.OPEN_TREE_CLONE)
	call("fsopen", unix.SYS_FSOPEN, str("tmpfs"), 0)
	call("keyctl", unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2), 1)
	call("keyctl of the user", unix.SYS_KEYCTL, unix.KEYCTL_DESCRIBE, ^uintptr(3), zero, 4096)
	call("add_key", unix.SYS_ADD_KEY, str("user"), str("probe"), zero, 4, ^uintptr(2))
	call("bpf", unix.SYS_BPF, unix.BPF_MAP_CREATE, zero, 64)
	call("perf_event_open", unix.SYS_PERF_EVENT_OPEN, zero, 0, ^uintptr(0), ^uintptr(0), 0)
	call("io_uring_setup", unix.SYS_IO_URING_SETUP, 1, zero)
	call("userfaultfd", unix.SYS_USERFAULTFD, 1)
	call("init_module", unix.SYS_INIT_MODULE, zero, 64, str(""))
	call("finit_module", unix.SYS_FINIT_MODULE, 0, str(""), 0)
	call("kexec_load", unix.SYS_KEXEC_LOAD, 0, 0, zero, 0)
	call("kcmp", unix.SYS_KCMP, 1, 1, 0, 0, 0)
	call("pidfd_open of init", unix.SYS_PIDFD_OPEN, 1, 0)
	call("process_vm_readv of init", unix.SYS_PROCESS_VM_READV, 1, 0, 0, 0, 0, 0)
	call("swapon", unix.SYS_SWAPON, str("/nosuch"), 0)
	call("acct", unix.SYS_ACCT, str("/nosuch"))
	call("quotactl", unix.SYS_QUOTACTL, 0, 0, 0, 0)
	call("syslog", unix.SYS_SYSLOG, 3, zero, 4096)
	call("fanotify_init", unix.SYS_FANOTIFY_INIT, 0, 0)
	call("name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, ^uintptr(99), str("/"), zero, zero, 0)
	call("landlock", unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1)
	call("memfd_secret", unix.SYS_MEMFD_SECRET, 0)
	call("setns", unix.SYS_SETNS, 0, 0)
	call("clock_settime", unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, 0)
	call("adjtimex", unix.SYS_ADJTIMEX, 0)
	call("ptrace of init", unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1, 0, 0)
	call("nice", unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, ^uintptr(19))
	for name, flags := range map[string]uintptr{
		"user": unix.CLONE_NEWUSER, "mnt": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "net": unix.CLONE_NEWNET, "ipc": unix.CLONE_NEWIPC, "uts": unix.CLONE_NEWUTS,
		"cgroup": unix.CLONE_NEWCGROUP, "time": unix.CLONE_NEWTIME,
	} {
		cmd := exec.Command("/proc/self/exe", "euid")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		out, err := cmd.Output()
		if err == nil && name == "user" {
			err = fmt.Errorf("yes, as %s", strings.TrimSpace(string(out)))
		}
		r.try("new "+name+" namespace", err)
	}
}

// undo takes a mount away again.
func undo(err error, path string) error {
	if err == nil {
		err = unix.Unmount(path, unix.MNT_DETACH)
	}
	return err
}

// sameName sets the host name to what it is.
func sameName() error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	return unix.Sethostname([]byte(name))
}
