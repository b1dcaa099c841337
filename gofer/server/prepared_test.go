// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// escapes are what a gofer that was taken over while it waits could try to get at the host:
// each must fail. The argument is a file of the host that all may read.
var escapes = map[string]func(file string) error{
	"read a file of the host":  func(file string) error { return open(file, unix.O_RDONLY) },
	"read /etc/passwd":         func(string) error { return open("/etc/passwd", unix.O_RDONLY) },
	"read above the root":      func(file string) error { return open("/../../.."+file, unix.O_RDONLY) },
	"open /proc":               func(string) error { return open("/proc", unix.O_PATH) },
	"open /dev":                func(string) error { return open("/dev", unix.O_PATH) },
	"mount a procfs":           func(string) error { return unix.Mount("proc", "/fd", "proc", 0, "") },
	"mount a sysfs":            func(string) error { return unix.Mount("sysfs", "/fd", "sysfs", 0, "") },
	"mount the cgroups":        func(string) error { return unix.Mount("cgroup", "/fd", "cgroup2", 0, "") },
	"mount the devices":        func(string) error { return unix.Mount("devtmpfs", "/fd", "devtmpfs", 0, "") },
	"mount a disk":             func(string) error { return unix.Mount("/null", "/fd", "ext4", 0, "") },
	"bind a file of the host":  func(file string) error { return unix.Mount(file, "/fd", "", unix.MS_BIND, "") },
	"make a device":            func(string) error { return unix.Mknod("/null", unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))) },
	"enter a root of its own":  func(string) error { return unix.Chroot("/fd") },
	"become another user":      func(string) error { return unix.Setresuid(1, 1, 1) },
	"execute itself":           func(string) error { return unix.Exec("/proc/self/exe", []string{"x"}, nil) },
	"load a module":            func(string) error { return unix.InitModule([]byte("x"), "") },
	"stop the host":            func(string) error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) },
	"set the clock":            func(string) error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) },
	"look at another process":  func(string) error { _, err := unix.PidfdOpen(2, 0); return err },
	"raise its own priority":   func(string) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -20) },
	"leave by its descriptors": leaveByDescriptors,
}

// leaveByDescriptors looks for a way out by what is open.
func leaveByDescriptors(file string) error {
	for fd := range 200 {
		var here, up unix.Stat_t
		if err := unix.Fstat(fd, &here); err != nil || here.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		for _, p := range []string{"../root" + file, "../../1/root" + file, "../.." + file, "../../../.." + file, "../sys/kernel/hostname", "../../sys/kernel/hostname"} {
			if out, err := unix.Openat(fd, p, unix.O_RDONLY, 0); err == nil {
				_ = unix.Close(out)
				return nil
			}
		}
		// The root of the mount that it is in.
		if err := unix.Fstatat(fd, "..", &up, 0); err == nil && (up.Ino != here.Ino || up.Dev != here.Dev) {
			return nil
		}
	}
	return errors.New("no way out")
}

// waitAndTry prepares this process as one that waits is, tries every escape, and stays until
// its input ends.
func waitAndTry(file string) int {
	if _, err := Prepare(); err != nil {
		fmt.Println(err)
		return childBroken
	}
	for what, try := range escapes {
		if err := try(file); err == nil {
			fmt.Println("escape:", what)
		}
	}
	fmt.Print(attempting)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return childDone
}

// ownMap maps every id of a kind that this process has to itself, as the launcher does.
func ownMap(t *testing.T, file string) (out []syscall.SysProcIDMap) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/" + file)
	must(t, err)
	for l := range strings.Lines(string(b)) {
		var inner, outer, size int
		_, err := fmt.Sscan(l, &inner, &outer, &size)
		must(t, err)
		out = append(out, syscall.SysProcIDMap{ContainerID: inner, HostID: inner, Size: size})
	}
	return out
}

// A gofer that waits sees nothing of the host, has no capability there, and finds no way out.
func TestPrepared(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	bin, err := program()
	must(t, err)
	file := filepath.Join(t.TempDir(), "canary")
	must(t, os.WriteFile(file, []byte("of the host"), 0o644))
	cmd := exec.Command(bin)
	cmd.Env = []string{childEnv + "=prepared escapes " + file}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
		UidMappings: ownMap(t, "uid_map"), GidMappings: ownMap(t, "gid_map"), GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{}, Setsid: true,
	}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	for lines := bufio.NewScanner(out); ; {
		if !lines.Scan() {
			t.Fatal("it has ended before it had tried everything")
		}
		if lines.Text()+"\n" == attempting {
			break
		}
		t.Error(lines.Text())
	}
	pid := cmd.Process.Pid
	want, none := fmt.Sprintf("%016x", uint64(mountCaps)), fmt.Sprintf("%016x", 0)
	for field, want := range map[string]string{"CapEff": want, "CapPrm": want, "CapBnd": none, "CapInh": none, "CapAmb": none, "NoNewPrivs": "1"} {
		if got := status(t, pid, field); got != want {
			t.Errorf("%s is %s, expected %s", field, got, want)
		}
	}
	if got := list(fmt.Sprintf("/proc/%d/root", pid)); got != "fd" {
		t.Errorf("its root holds %q", got)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	must(t, err)
	if n := strings.Count(string(b), "\n"); n != 1 || !strings.Contains(string(b), " - tmpfs ") {
		t.Errorf("its mounts are\n%s", b)
	}
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts"} {
		mine, err := os.Readlink("/proc/self/ns/" + ns)
		must(t, err)
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		must(t, err)
		if mine == its {
			t.Errorf("it shares the namespace %s of the host", ns)
		}
	}
}

// The escapes can be seen: on the host, where this test runs, some of them succeed.
func TestEscapesAreSeen(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "canary")
	must(t, os.WriteFile(file, nil, 0o644))
	for _, what := range []string{"read a file of the host", "read above the root", "open /proc"} {
		if err := escapes[what](file); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	dir, err := os.Open("/proc/self/fd")
	must(t, err)
	defer dir.Close()
	if err := leaveByDescriptors(file); err != nil {
		t.Errorf("a descriptor of the host's procfs leads nowhere: %v", err)
	}
}
