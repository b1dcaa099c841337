// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// MountOptions are what the options of a mount ask for.
type MountOptions struct {
	ReadOnly bool `json:"readOnly,omitempty"`
	NoExec   bool `json:"noExec,omitempty"`
	NoSUID   bool `json:"noSUID,omitempty"`
	NoDev    bool `json:"noDev,omitempty"`
	NoATime  bool `json:"noATime,omitempty"`
	// Single leaves out what is mounted below the source of a bind mount.
	Single bool `json:"single,omitempty"`
	// CopyUp asks for a copy of the directory under a tmpfs.
	CopyUp bool `json:"copyUp,omitempty"`
	// Atime are the attributes of the host's mount that say when times of access
	// are written.
	Atime uint64 `json:"atime,omitempty"`
	// Data is for the filesystem.
	Data []string `json:"data,omitempty"`
}

// The names of options, but for an "r" in front, which makes them recursive: that
// is what all of them are here.
var mountFlags = map[string]func(*MountOptions){
	"ro":     func(o *MountOptions) { o.ReadOnly = true },
	"rw":     func(o *MountOptions) { o.ReadOnly = false },
	"noexec": func(o *MountOptions) { o.NoExec = true },
	"exec":   func(o *MountOptions) { o.NoExec = false },
	"nosuid": func(o *MountOptions) { o.NoSUID = true },
	"suid":   func(o *MountOptions) { o.NoSUID = false },
	"nodev":  func(o *MountOptions) { o.NoDev = true },
	"dev":    func(o *MountOptions) { o.NoDev = false },
	"noatime": func(o *MountOptions) {
		o.NoATime, o.Atime = true, o.Atime&unix.MOUNT_ATTR_NODIRATIME|unix.MOUNT_ATTR_NOATIME
	},
	"atime":    func(o *MountOptions) { o.NoATime, o.Atime = false, o.Atime&unix.MOUNT_ATTR_NODIRATIME },
	"relatime": func(o *MountOptions) { o.NoATime, o.Atime = false, o.Atime&unix.MOUNT_ATTR_NODIRATIME },
	"strictatime": func(o *MountOptions) {
		o.NoATime, o.Atime = false, o.Atime&unix.MOUNT_ATTR_NODIRATIME|unix.MOUNT_ATTR_STRICTATIME
	},
	"nodiratime": func(o *MountOptions) { o.Atime |= unix.MOUNT_ATTR_NODIRATIME },
	"diratime":   func(o *MountOptions) { o.Atime &^= unix.MOUNT_ATTR_NODIRATIME },
	"private":    func(*MountOptions) {},
	"unbindable": func(*MountOptions) {}, // a sandbox can't bind what is outside of it
}

// Options that are what a mount has anyway.
var mountDefaults = []string{
	"defaults", "async", "nomand", "noiversion", "norelatime", "nostrictatime", "nolazytime", "loud", "silent", "symfollow", "notmpcopyup",
}

// Propagation that only an OCI client may ask for, who expects it to be taken: no
// mount that the host makes later reaches a sandbox, and none leaves it.
var mountPropagation = []string{"slave", "shared"}

// filesystemOptions are those of the filesystems of the sentry. For tmpfs it takes
// them; the others are of the host's kernel and mean nothing in the sandbox's own.
var filesystemOptions = map[string][]string{
	"tmpfs":   {"mode", "size", "uid", "gid"},
	"devpts":  {"newinstance", "ptmxmode", "mode", "gid", "uid"},
	"cgroup":  {"all", "cpu", "cpuacct", "cpuset", "devices", "job", "memory", "pids", "name", "xattr", "clone_children", "blkio", "freezer", "hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc"},
	"cgroup2": {"nsdelegate", "memory_recursiveprot", "memory_localevents", "favordynmods", "xattr"},
}

// MountOptionNames are the options that are honoured, for clients that ask.
func MountOptionNames() []string {
	names := []string{"bind", "rbind"}
	for n := range mountFlags {
		names = append(names, n)
		if recursiveFlag("r"+n) != "" {
			names = append(names, "r"+n)
		}
	}
	slices.Sort(names)
	return names
}

// recursiveFlag is the flag that an option with an "r" in front is of, "" if there
// is no such option: runc and crun know these.
func recursiveFlag(option string) string {
	flag, ok := strings.CutPrefix(option, "r")
	if _, known := mountFlags[flag]; !ok || !known {
		return ""
	}
	return flag
}

// parseMountOptions reads the options of a mount of config.json. Those that can't
// be honoured are refused: the author of the mount relies on them.
func parseMountOptions(m *specs.Mount, client bool) (o MountOptions, err error) {
	bind := IsBind(*m)
	o.Single = slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind")
	for _, opt := range m.Options {
		key, _, _ := strings.Cut(opt, "=")
		flag := opt
		if r := recursiveFlag(opt); r != "" {
			flag = r
		}
		set, known := mountFlags[flag]
		switch {
		case known:
			set(&o)
		case opt == "" || opt == "bind" || opt == "rbind" || slices.Contains(mountDefaults, opt):
		case client && slices.Contains(mountPropagation, strings.TrimPrefix(opt, "r")):
		case client && bind && opt != key:
			// For a filesystem, which a bind mount has already: the kernel looks at
			// none of these either, and clients do give them.
		case !bind && m.Type == "tmpfs" && opt == "tmpcopyup" && client:
			o.CopyUp = true
		case !bind && slices.Contains(filesystemOptions[m.Type], key):
			o.Data = append(o.Data, opt)
		default:
			return o, fmt.Errorf("options: %.60q can't be honoured for a mount of type %s; remove it", opt, mountType(m))
		}
	}
	return o, nil
}

func mountType(m *specs.Mount) string {
	if IsBind(*m) {
		return "bind"
	}
	return m.Type
}

// forSentry are the options in the sentry's words.
func (o *MountOptions) forSentry() (out []string) {
	for _, f := range []struct {
		set  bool
		name string
	}{{o.ReadOnly, "ro"}, {o.NoExec, "noexec"}, {o.NoSUID, "nosuid"}, {o.NoATime, "noatime"}} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return append(out, o.Data...)
}

// own makes a mount of one of the sentry's filesystems. It has no devices but the
// sentry's, so that nodev is nothing to ask for.
func (o *MountOptions) own(m specs.Mount) specs.Mount {
	m.Options = o.forSentry()
	return m
}
