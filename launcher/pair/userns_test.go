// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/proc"
)

// inNamespace tells a run of this test that it is the one in a namespace, and
// what is done there.
const inNamespace = "SANDBOXCTL_TEST_IN_USERNS"

// A gofer is in a user namespace of its own whatever namespace the daemon is in,
// with the ids that the daemon has. Where that can't be, it is not started, and
// the error says why.
func TestGoferNamespace(t *testing.T) {
	switch os.Getenv(inNamespace) {
	case "":
	case "forbidden":
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
		fallthrough
	default:
		fmt.Println(startInGoferNamespace(t))
		return
	}
	hosttest.NeedsRoot(t, "mapping more than one id needs root")
	if got := startInGoferNamespace(t); got != "0 0 4294967295 0 0 4294967295 true" {
		t.Errorf("in the host's namespace: %s", got)
	}
	for name, c := range map[string]struct {
		ids  []syscall.SysProcIDMap
		want string
	}{
		"one id":    {[]syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}}, "0 0 1 0 0 1 true"},
		"two":       {[]syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1000}, {ContainerID: 5000, HostID: 200000, Size: 7}}, "0 0 1000 5000 5000 7 0 0 1000 5000 5000 7 true"},
		"forbidden": {[]syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1000}}, "is a limit of sysctl user.max_*_namespaces reached?"},
	} {
		// By descriptor: the directory that it is in is root's alone.
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer self.Close()
		cmd := exec.Command("/proc/self/fd/3", "-test.run=^TestGoferNamespace$")
		cmd.ExtraFiles = []*os.File{self}
		cmd.Env = append(os.Environ(), inNamespace+"="+name, "TMPDIR=/dev/shm")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: c.ids, GidMappings: c.ids, GidMappingsEnableSetgroups: true,
			Credential: &syscall.Credential{},
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want+"\n") && name != "forbidden" || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %v\n%s\nexpected %s", name, err, out, c.want)
		}
	}
}

// startInGoferNamespace starts a child as a gofer is started, and returns its
// mappings and whether it is in another namespace, or the error.
func startInGoferNamespace(t *testing.T) string {
	t.Helper()
	attr, err := goferAttr(nil)
	if err != nil {
		return err.Error()
	}
	attr.Cloneflags &^= unix.CLONE_NEWPID // its own /proc would need a mount
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var d proc.Donation
	gate, _, err := proc.NewGate(&d)
	if err != nil {
		t.Fatal(err)
	}
	c, err := proc.StartGated(proc.Program{
		Path: "/bin/sh", Args: []string{"sh", "-c", "exec >&2; cat /proc/self/uid_map /proc/self/gid_map; readlink /proc/self/ns/user"},
		Attr: attr, Donation: &d, Gate: gate, Stderr: out, CgroupFD: -1,
	})
	if err != nil {
		return err.Error()
	}
	var info unix.Siginfo
	if err := proc.RetryEINTR(func() error { return unix.Waitid(unix.P_PIDFD, int(c.PIDFD.Fd()), &info, unix.WEXITED, nil) }); err != nil {
		t.Fatal(err)
	}
	c.Close()
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Readlink("/proc/self/ns/user")
	f := strings.Fields(string(b))
	if err != nil || len(f) == 0 {
		return fmt.Sprintf("%v %s", err, b)
	}
	return strings.Join(f[:len(f)-1], " ") + fmt.Sprintf(" %v", f[len(f)-1] != own)
}

// Mappings that were asked for are not changed.
func TestGoferMappings(t *testing.T) {
	t.Parallel()
	maps := &idmap.Maps{UIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 10}}, GIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 20}}}
	attr, err := goferAttr(maps)
	if err != nil || attr.UidMappings[0].HostID != 100000 || attr.GidMappings[0].Size != 20 || attr.Cloneflags&unix.CLONE_NEWUSER == 0 {
		t.Errorf("%+v %v", attr, err)
	}
}
