// SPDX-License-Identifier: Apache-2.0

package specfield

import specs "github.com/opencontainers/runtime-spec/specs-go"

// Way is how a configuration comes in.
type Way int

const (
	// Bundle is spec.root.bundle of a manifest.
	Bundle Way = iota
	// Runtime is a client of `sandboxctl oci`.
	Runtime
	// Exec is one more process of a container, `sandboxctl oci exec --process`.
	Exec

	ways
)

// Decision is what is done with a field.
type Decision int

const (
	// None is for a field that can't occur in this way.
	None Decision = iota
	// Honoured fields have the effect that the specification describes.
	Honoured
	// Refused fields make a configuration that sets them an error.
	Refused
	// Ignored fields have no effect, and need none.
	Ignored
)

// String is the decision as the documentation has it.
func (d Decision) String() string { return [...]string{"–", "honoured", "refused", "ignored"}[d] }

// Rule is the decision for one way.
type Rule struct {
	Decision Decision
	// Why is the reason of a refusal or of doing nothing, or a limit of what is
	// honoured.
	Why string
	// allowed says that a value asks for nothing: it is accepted where others are
	// refused. nil accepts zero values only.
	allowed func(any) bool
	// zeroToo says that a number which is given as 0 asks for something as well.
	zeroToo bool
}

// Field is a row of the table. A row that is refused or ignored in every way
// stands for all fields below it.
type Field struct {
	// Path is its name in JSON, without the positions of lists and the keys of maps.
	Path  string
	Rules [ways]Rule
}

func honoured(why ...string) Rule {
	r := Rule{Decision: Honoured}
	if len(why) > 0 {
		r.Why = why[0]
	}
	return r
}

func refused(why string) Rule { return Rule{Decision: Refused, Why: why} }

func ignored(why string) Rule { return Rule{Decision: Ignored, Why: why} }

// unless is the rule with values that ask for nothing.
func (r Rule) unless(allowed func(any) bool) Rule {
	r.allowed = allowed
	return r
}

// orZero is the rule for a number of which 0 is a value like any other.
func (r Rule) orZero() Rule {
	r.zeroToo = true
	return r
}

// Reasons that several fields share.
const (
	whyWindows    = "it is for Windows"
	whyOther      = "it is for another platform than Linux"
	whyIDMap      = "mounts have no id mappings of their own"
	whyScheduler  = "gVisor schedules the threads of a sandbox itself"
	whyIOPriority = "the input and output of a sandbox is done by its sentry and gofer"
	whyAffinity   = "gVisor runs the commands of a sandbox on all of its processors; use linux.resources.cpu.cpus"
	whyLSM        = "it confines a process of the host, and no process of a sandbox is one; sentry and gofer are confined by gVisor's own means"
	whyRDT        = "sandboxes are put into no resctrl group"
	whyTime       = "a sandbox has gVisor's clocks, which have no offsets"
	whyListener   = "no system call of a sandbox can be handed to a program of the host"
	whySeccomp    = "every program of a sandbox is of the native architecture"
	whyUseSpec    = "a manifest's sandbox has the limits of spec.resources; use memory.limit, pids.limit or cpu.quota with cpu.period, or remove it"
	whyNoDevices  = "devices of a manifest's sandbox are gVisor's own"
	whyErrnos     = "EPERM, ENOSYS and one more error as asked for, others as EPERM; beside SCMP_ACT_TRAP the two alone"
	whyActions    = "LOG allows, KILL_PROCESS ends the thread, TRACE is ENOSYS, NOTIFY is refused"
	whyOnlyV1     = "cgroup v1 has it, v2 does not: there it is refused"
)

// both is a field that is treated alike however it comes in.
func both(path string, r Rule) Field {
	return Field{Path: path, Rules: [ways]Rule{Bundle: r, Runtime: r}}
}

func field(path string, bundle, runtime Rule) Field {
	return Field{Path: path, Rules: [ways]Rule{Bundle: bundle, Runtime: runtime}}
}

// of is a field of a process.
func of(path string, bundle, runtime, exec Rule) Field {
	return Field{Path: "process." + path, Rules: [ways]Rule{bundle, runtime, exec}}
}

func alike(path string, r Rule) Field { return of(path, r, r, r) }

// Fields is the table.
func Fields() []Field {
	var out []Field
	for _, part := range [][]Field{processFields(), containerFields(), hookFields(), linuxFields(), resourceFields(), seccompFields()} {
		out = append(out, part...)
	}
	return out
}

func processFields() []Field {
	h := honoured()
	return []Field{
		of("terminal", honoured("an output-only terminal"), h, h),
		of("consoleSize.height", ignored("the terminal of a manifest's application is for output and has no size"), h, h),
		of("consoleSize.width", ignored("the terminal of a manifest's application is for output and has no size"), h, h),
		alike("user.uid", h),
		alike("user.gid", h),
		of("user.umask", h, h, ignored("gVisor starts commands with 0022")),
		alike("user.additionalGids", h),
		alike("user.username", refused(whyWindows)),
		alike("args", h),
		alike("commandLine", refused(whyWindows)),
		alike("env", h),
		alike("cwd", h),
		alike("capabilities.bounding", h),
		alike("capabilities.effective", h),
		alike("capabilities.inheritable", h),
		alike("capabilities.permitted", h),
		alike("capabilities.ambient", honoured("as far as it is permitted and inheritable")),
		of("rlimits.type", h, h, ignored("a command has the limits of its container")),
		of("rlimits.hard", h, h, ignored("a command has the limits of its container")),
		of("rlimits.soft", h, h, ignored("a command has the limits of its container")),
		alike("noNewPrivileges", h),
		alike("apparmorProfile", ignored(whyLSM)),
		of("oomScoreAdj", refused("the daemon sets the score of its sandboxes"), honoured("the score of sentry and gofer"), ignored("a command runs in the sentry of its container")),
		alike("scheduler", refused(whyScheduler).unless(defaultScheduler)),
		alike("selinuxLabel", ignored(whyLSM)),
		alike("ioPriority", refused(whyIOPriority)),
		alike("execCPUAffinity", refused(whyAffinity)),
	}
}

func defaultScheduler(v any) bool {
	s, ok := v.(*specs.Scheduler)
	return ok && (s.Policy == "" || s.Policy == specs.SchedOther) && s.Nice == 0 && s.Priority == 0 && len(s.Flags) == 0 && s.Runtime == 0 && s.Deadline == 0 && s.Period == 0
}

func containerFields() []Field {
	h := honoured()
	return []Field{
		field("ociVersion", ignored("every field is checked by itself, and an unknown one is refused"), honoured("1.x")),
		both("root.path", h),
		both("root.readonly", h),
		both("hostname", h),
		both("domainname", h),
		both("mounts.destination", h),
		both("mounts.type", honoured("filesystems that gVisor has")),
		both("mounts.source", h),
		field("mounts.options", honoured("those that can't be are refused"), honoured("those that can't be are refused; `shared` and `slave` are as `private`")),
		both("mounts.uidMappings", refused(whyIDMap)),
		both("mounts.gidMappings", refused(whyIDMap)),
		field("annotations", honoured("given to hooks, and changes nothing"), honoured("given to hooks and clients, and changes nothing")),
		both("solaris", refused(whyOther)),
		both("windows", refused(whyOther)),
		both("vm", refused(whyOther)),
		both("zos", refused(whyOther)),
	}
}

func hookFields() []Field {
	var out []Field
	for _, kind := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} {
		bundle := honoured("if the host policy allows hooks")
		if kind == "startContainer" {
			bundle = honoured("in the sandbox")
		}
		for _, name := range []string{"path", "args", "env", "timeout"} {
			out = append(out, field("hooks."+kind+"."+name, bundle, honoured()))
		}
	}
	return out
}

func linuxFields() []Field {
	h := honoured()
	idMap := refused("the mapping of a manifest's sandbox is spec.idMappings")
	var out []Field
	for _, list := range []string{"uidMappings", "gidMappings"} {
		for _, name := range []string{"containerID", "hostID", "size"} {
			out = append(out, field("linux."+list+"."+name, idMap, honoured("a mapping of the gofer")))
		}
	}
	out = append(out,
		both("linux.sysctl", refused("gVisor sets none but fs.nr_open").unless(settableSysctls)),
		field("linux.cgroupsPath", refused("the daemon chooses the cgroup of a manifest's sandbox"), h),
		field("linux.namespaces.type", ignored("a sandbox shares no namespace; its network is spec.network"), honoured("network and user; of the others a sandbox has its own in any case")),
		field("linux.namespaces.path", refused("a manifest's sandbox joins no namespace but spec.network.netns"), honoured("network and user; others must be of their kind and are not joined")),
	)
	for _, name := range []string{"path", "type", "major", "minor", "fileMode", "uid", "gid"} {
		out = append(out, field("linux.devices."+name, refused(whyNoDevices), honoured("a node of gVisor's own device")))
	}
	return append(out,
		both("linux.rootfsPropagation", ignored("no mount leaves or enters a sandbox")),
		both("linux.maskedPaths", honoured("where the host serves files")),
		both("linux.readonlyPaths", honoured("where the host serves files")),
		field("linux.mountLabel", refused("no mount of a sandbox has a label of SELinux"), ignored("no mount of a sandbox is one of the host's, which could have a label")),
		both("linux.intelRdt", refused(whyRDT)),
		both("linux.personality", refused("gVisor has the personality LINUX only").unless(defaultPersonality)),
		both("linux.timeOffsets", refused(whyTime)),
	)
}

func defaultPersonality(v any) bool {
	p, ok := v.(*specs.LinuxPersonality)
	return ok && (p.Domain == "" || p.Domain == specs.PerLinux) && len(p.Flags) == 0
}

// clientSysctls are those that clients set in every configuration without being
// asked to. They widen what unprivileged programs of a container may do.
var clientSysctls = map[string]bool{"net.ipv4.ping_group_range": true, "net.ipv4.ip_unprivileged_port_start": true}

// settableSysctls accepts what gVisor sets and what needs no effect.
func settableSysctls(v any) bool {
	m, ok := v.(map[string]string)
	if !ok {
		return false
	}
	for name := range m {
		if name != "fs.nr_open" && !clientSysctls[name] {
			return false
		}
	}
	return true
}

func resourceFields() []Field {
	const base = "linux.resources."
	h := honoured()
	var out []Field
	for _, name := range []string{"allow", "type", "major", "minor", "access"} {
		out = append(out, field(base+"devices."+name, ignored(whyNoDevices), honoured("by cgroup v1; on v2 it changes nothing, as devices of a sandbox are gVisor's own")))
	}
	out = append(out,
		field(base+"memory.limit", honoured("where spec.resources has none"), h),
		field(base+"memory.reservation", refused(whyUseSpec), h),
		field(base+"memory.swap", refused(whyUseSpec), h),
		both(base+"memory.kernel", ignored("kernel memory is part of memory.limit; the specification lets runtimes ignore it")),
		field(base+"memory.kernelTCP", refused(whyUseSpec), honoured(whyOnlyV1)),
		field(base+"memory.swappiness", refused(whyUseSpec).orZero(), honoured(whyOnlyV1)),
		field(base+"memory.disableOOMKiller", refused(whyUseSpec), honoured(whyOnlyV1)),
		both(base+"memory.useHierarchy", ignored("kernels since 5.11 account for every group with those below it")),
		field(base+"memory.checkBeforeUpdate", ignored("a limit that is set before the start has nothing to be compared with"), h),
		field(base+"cpu.quota", honoured("where spec.resources has none, with cpu.period"), h),
		field(base+"cpu.period", honoured("where spec.resources has none, with cpu.quota"), h),
	)
	for _, name := range []string{"shares", "burst", "realtimeRuntime", "realtimePeriod", "cpus", "mems", "idle"} {
		out = append(out, field(base+"cpu."+name, refused(whyUseSpec), h))
	}
	out = append(out, field(base+"pids.limit", honoured("where spec.resources has none"), h))
	for _, name := range []string{
		"weight", "leafWeight", "weightDevice.major", "weightDevice.minor", "weightDevice.weight", "weightDevice.leafWeight",
		"throttleReadBpsDevice.major", "throttleReadBpsDevice.minor", "throttleReadBpsDevice.rate",
		"throttleWriteBpsDevice.major", "throttleWriteBpsDevice.minor", "throttleWriteBpsDevice.rate",
		"throttleReadIOPSDevice.major", "throttleReadIOPSDevice.minor", "throttleReadIOPSDevice.rate",
		"throttleWriteIOPSDevice.major", "throttleWriteIOPSDevice.minor", "throttleWriteIOPSDevice.rate",
	} {
		out = append(out, field(base+"blockIO."+name, refused(whyUseSpec), h))
	}
	for _, name := range []string{
		"hugepageLimits.pageSize", "hugepageLimits.limit", "network.classID", "network.priorities.name", "network.priorities.priority",
		"rdma.hcaHandles", "rdma.hcaObjects",
	} {
		out = append(out, field(base+name, refused(whyUseSpec), h))
	}
	return append(out, field(base+"unified", refused(whyUseSpec), honoured("on cgroup v2")))
}

func seccompFields() []Field {
	const base = "linux.seccomp."
	out := []Field{
		both(base+"defaultAction", honoured(whyActions)),
		both(base+"syscalls.action", honoured(whyActions)),
		both(base+"syscalls.names", honoured("names that gVisor does not know are passed over")),
		both(base+"defaultErrnoRet", honoured(whyErrnos)),
		both(base+"architectures", ignored(whySeccomp)),
		both(base+"flags", ignored("they are about logs and mitigations of the host's kernel, which does not see these system calls")),
		both(base+"listenerPath", refused(whyListener)),
		both(base+"listenerMetadata", refused(whyListener)),
		both(base+"syscalls.errnoRet", honoured(whyErrnos)),
	}
	for _, name := range []string{"args.index", "args.value", "args.valueTwo", "args.op"} {
		out = append(out, both(base+"syscalls."+name, honoured()))
	}
	return out
}
