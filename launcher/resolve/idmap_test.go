// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/idmap"
)

func idRange(inside, outside, size uint32) specs.LinuxIDMapping {
	return specs.LinuxIDMapping{ContainerID: inside, HostID: outside, Size: size}
}

func TestContainerMaps(t *testing.T) {
	t.Parallel()
	good := []specs.LinuxIDMapping{idRange(0, 100000, 65536)}
	for _, c := range []struct {
		linux  specs.Linux
		path   string
		userns bool
		want   string
	}{
		{specs.Linux{}, "", false, ""},
		{specs.Linux{UIDMappings: good, GIDMappings: good}, "", true, ""},
		{specs.Linux{UIDMappings: good}, "", false, "they need a user namespace"},
		{specs.Linux{}, "", true, "uidMappings: expected 1 to"},
		{specs.Linux{GIDMappings: good}, "/proc/self/ns/user", true, "joined by path has its own"},
		{specs.Linux{}, "/proc/self/ns/net", true, "it is not a user namespace"},
		{specs.Linux{}, "/etc/passwd", true, "it is not a namespace"},
		{specs.Linux{}, "/nosuch", true, "no such file"},
	} {
		_, err := idmap.OfContainer(&c.linux, c.path, c.userns, mapsOf)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, expected %q", c, err, c.want)
		}
	}
}

// The mappings of a namespace that is found by path are those of the processes in it.
func TestMapsOf(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "making a user namespace with mappings needs root")
	want := &idmap.Maps{UIDs: []specs.LinuxIDMapping{idRange(0, 300000, 1000), idRange(5000, 400000, 1)}, GIDs: []specs.LinuxIDMapping{idRange(0, 350000, 10)}}
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: unix.SIGKILL, Cloneflags: unix.CLONE_NEWUSER, GidMappingsEnableSetgroups: true,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 300000, Size: 1000}, {ContainerID: 5000, HostID: 400000, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 350000, Size: 10}},
		Credential:  &syscall.Credential{},
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(cmd.Process.Kill(), cmd.Wait()) }()
	path := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "ns/user")
	got, err := mapsOf(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v, expected %+v", got, err, want)
	}
	if _, err := idmap.Parse("0 1\n"); err == nil {
		t.Error("two numbers are a range")
	}
}
