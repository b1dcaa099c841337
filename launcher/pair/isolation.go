// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"fmt"
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/remember"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// Namespaces that both children get new and empty.
const childNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// sentryAttr isolates the sentry. With the host's network or direct file
// access it needs capabilities over host objects and stays in the host's user
// namespace, where it drops all but those itself; otherwise it becomes nobody
// in a user namespace of its own, and the capabilities it enters its chroot
// with were never good for anything outside of it.
func sentryAttr(st *setup.Setup) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: childNamespaces | unix.CLONE_NEWCGROUP}
	if !st.HostNetwork && st.NetNS == "" {
		attr.Cloneflags |= unix.CLONE_NEWNET
	}
	if st.HostUserns() {
		return attr
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: wire.Nobody, HostID: wire.Nobody, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: wire.Nobody, HostID: wire.Nobody, Size: 1}}
	// It becomes nobody by itself (wire.FlagNobody), after exec: nobody could
	// not even reach a binary below a home directory that is 0700.
	attr.GidMappingsEnableSetgroups = true
	// CAP_SETPCAP is left out: with it gVisor clears the bounding set by 41 calls
	// on all threads, which took 5 ms of a start. The set stays full, and is good
	// for nothing: the sentry ends up without a capability, with no_new_privs, and
	// its filter has no execve.
	attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_SETUID, unix.CAP_SETGID}
	return attr
}

// goferAttr isolates the gofer. It is root of a user namespace of its own, also
// where ids stay as they are: a gofer that was taken over has power over the
// files of the ids that are mapped, and none that the kernel grants to the host's
// root only (file handles, mounts, modules, the host's namespaces). Its network
// namespace is netns.Empty.
func goferAttr(maps *idmap.Maps) (*syscall.SysProcAttr, error) {
	if maps == nil {
		var err error
		if maps, err = identityMaps(); err != nil {
			return nil, err
		}
	}
	attr := &syscall.SysProcAttr{Cloneflags: childNamespaces}
	mapUsers(maps, attr)
	return attr, nil
}

// identityMaps map every id that this process's own user namespace has to itself:
// a daemon that runs in one, as in an unprivileged container, can't map others.
var identityMaps = remember.Success(func() (*idmap.Maps, error) {
	m := &idmap.Maps{}
	for name, to := range map[string]*[]specs.LinuxIDMapping{"uid_map": &m.UIDs, "gid_map": &m.GIDs} {
		b, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			return nil, fmt.Errorf("read own id mappings: %w", err)
		}
		if *to, err = idmap.Parse(string(b)); err != nil {
			return nil, fmt.Errorf("read own id mappings: %w", err)
		}
		for i := range *to {
			r := &(*to)[i]
			r.HostID = r.ContainerID
		}
	}
	return m, nil
})

// mapUsers has a process start as root of a new user namespace with the mappings.
func mapUsers(m *idmap.Maps, attr *syscall.SysProcAttr) {
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings, attr.GidMappings = sysMaps(m.UIDs), sysMaps(m.GIDs)
	attr.GidMappingsEnableSetgroups = true
	attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
}

func sysMaps(maps []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(maps))
	for i, m := range maps {
		out[i] = syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)}
	}
	return out
}
