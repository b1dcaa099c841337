// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"encoding/json"
	"fmt"
	"time"
)

// The comments of the fields below are the table of docs/reference/manifest.md:
// write it with `make reference`. "Default: X." at the end of a comment is the
// column of defaults, where Default does not fill one in.

// Sandbox is one manifest document: the state its author wants. The author
// owns every field; sandboxctl never writes one back.
type Sandbox struct {
	// `sandboxctl.dev/v1alpha1`.
	APIVersion string `json:"apiVersion"`
	// `Sandbox`.
	Kind     string   `json:"kind"`
	Metadata Metadata `json:"metadata"`
	Spec     Spec     `json:"spec"`
}

// Metadata names a sandbox.
type Metadata struct {
	// A DNS label, unique in the manifests directory.
	Name string `json:"name"`
	// For readers and for `-l`; a change restarts nothing.
	Labels map[string]string `json:"labels,omitempty"`
	// For readers; a change restarts nothing.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Spec says how a sandbox runs. Field words follow the Kubernetes Pod where
// one exists. A field that is not here is refused, never ignored; what this
// version cannot do yet is named in planned.go.
type Spec struct {
	// The root filesystem: exactly one of the fields below.
	Root Root `json:"root"`
	// Where writes to the root go: into memory, which is gone with the sandbox; or
	// through to `root.dir`.
	Overlay string `json:"overlay,omitempty"`
	// The program. `$(NAME)` is replaced, see Variables.
	Command []string `json:"command,omitempty"`
	// The arguments of the program, after those in `command`.
	Args []string `json:"args,omitempty"`
	// Environment variables. `PATH` is set if it is not given.
	Env []EnvVar `json:"env,omitempty"`
	// The working directory.
	WorkingDir string `json:"workingDir,omitempty"`
	// Who the application is inside the sandbox. Default: root.
	User *User `json:"user,omitempty"`
	// The application gets an output-only terminal, 80 by 24. What it writes there goes to
	// the log, with newlines unchanged; use `exec -it` for interactive work. Default:
	// `false`.
	Terminal bool `json:"terminal,omitempty"`
	// Process 1 of the sandbox is an init process, which starts the application;
	// with `false` it is the application. Default: `true`.
	Init *bool `json:"init,omitempty"`
	// The host name inside the sandbox. Default: the name.
	Hostname string `json:"hostname,omitempty"`
	// Changes of the default capabilities of the application, inside the sandbox: first
	// `drop`, then `add`.
	Capabilities *Capabilities `json:"capabilities,omitempty"`
	// Limits of the application, as in setrlimit(2). They do not depend on how the
	// daemon was started: see Limits of the application.
	Rlimits []Rlimit `json:"rlimits,omitempty"`
	// Directories and files of the host, and tmpfs: see Volumes.
	Volumes []Volume `json:"volumes,omitempty"`
	// Who users and groups of the sandbox are on the host: the gofer serves files in a
	// user namespace with these mappings, so that root of the sandbox has no power
	// over what is not mapped. User and group 0 must be mapped. Not possible with
	// `fileAccess: direct`. Default: ids are the same.
	IDMappings *IDMappings `json:"idMappings,omitempty"`
	// What the sandbox can reach: see [Network](../guide/network.md).
	Network Network `json:"network,omitzero"`
	// How gVisor catches system calls.
	Platform string `json:"platform,omitempty"`
	// `proxy`: every file operation goes through the gofer. `direct`: the sentry gets
	// descriptors, which is faster and puts more of the host's kernel in reach.
	FileAccess string `json:"fileAccess,omitempty"`
	// Limits of sentry, application and gofer together, by cgroup. What is left out
	// has the default of the host policy. See the condition `ResourcesEnforced`.
	Resources Resources `json:"resources,omitzero"`
	Lifecycle           // restart policy, stop and suspend: changes apply without a restart
}

// Lifecycle holds the fields that say when a sandbox runs, not what runs in
// it. They are not part of the spec hash: a change takes effect at the next
// decision, without a restart.
type Lifecycle struct {
	// When the application is started again after it has ended.
	RestartPolicy string `json:"restartPolicy,omitempty"`
	// The delay before a start after a failure.
	Backoff Backoff `json:"backoff,omitzero"`
	// The signal that asks the application to end; also as `TERM`, `15` or `SIGRTMIN+3`.
	StopSignal Signal `json:"stopSignal,omitempty"`
	// The time between that signal and the kill.
	TerminationGracePeriod *Duration `json:"terminationGracePeriod,omitempty"`
	// Stop the sandbox and keep its record. Default: `false`.
	Suspend bool `json:"suspend,omitempty"`
	// How long the sandbox must run before `apply --wait` and `wait --for=ready` take
	// it for ready. It does not change the condition `Ready`.
	MinReadySeconds *int `json:"minReadySeconds,omitempty"`
}

// Root selects the root filesystem: exactly one field is set.
type Root struct {
	// `{}`: a read-only view of the host's programs, see Root of the host.
	Host *HostRoot `json:"host,omitempty"`
	// The absolute path of a prepared root filesystem.
	Dir string `json:"dir,omitempty"`
	// The absolute path of an OCI bundle; the fields from `command` to `rlimits` come
	// from its `config.json`, see Bundles.
	Bundle string `json:"bundle,omitempty"`
}

// HostRoot has no fields: `host: {}`.
type HostRoot struct{}

// Values of Spec.Overlay: where writes to the root go.
const (
	OverlayMemory = "memory" // into the sandbox's memory, gone with it
	OverlayNone   = "none"   // through to the root itself
)

// Values of Spec.FileAccess.
const (
	FileAccessProxy  = "proxy"  // every file operation goes through the gofer
	FileAccessDirect = "direct" // the gofer hands the sentry file descriptors
)

// Values of Spec.Platform, in gVisor's words.
const (
	PlatformSystrap = "systrap"
)

// EnvVar is one environment variable.
type EnvVar struct {
	// The name of the variable.
	Name string `json:"name"`
	// Its value. `$(NAME)` is replaced, see Variables.
	Value string `json:"value,omitempty"`
}

// User is the identity of the application inside the sandbox.
type User struct {
	// The user id.
	UID uint32 `json:"uid"`
	// The group id.
	GID uint32 `json:"gid"`
	// Supplementary groups.
	Groups []uint32 `json:"groups,omitempty"`
}

// Capabilities changes the default capability set of the application
// (gVisor's, inside the sandbox).
type Capabilities struct {
	// Names such as `NET_ADMIN` or `CAP_NET_ADMIN`; the host policy must allow them.
	Add []string `json:"add,omitempty"`
	// Names, or `ALL`.
	Drop []string `json:"drop,omitempty"`
}

// Rlimit is one resource limit of the application, as in setrlimit(2).
type Rlimit struct {
	// A name such as `NOFILE` or `RLIMIT_NOFILE`.
	Type string `json:"type"`
	// The limit in force.
	Soft uint64 `json:"soft"`
	// The most to which the application may raise it.
	Hard uint64 `json:"hard"`
}

// IDMappings say who the users and groups of the sandbox are on the host, for
// the files that it is served. Without them ids are the same.
type IDMappings struct {
	// Ranges of user ids.
	UIDs []IDMapping `json:"uids"`
	// Ranges of group ids.
	GIDs []IDMapping `json:"gids"`
}

// IDMapping maps a range of ids, in the words of the OCI runtime specification.
type IDMapping struct {
	// The first id in the sandbox.
	ContainerID uint32 `json:"containerID"`
	// The first id on the host.
	HostID uint32 `json:"hostID"`
	// How many ids.
	Size uint32 `json:"size"`
}

// Volume mounts one source at MountPath: exactly one of HostPath and Tmpfs is
// set.
type Volume struct {
	// A DNS label, unique in the manifest.
	Name string `json:"name"`
	// Where it is in the sandbox, absolute. It may be a link of the root: the volume is
	// where that leads, even if there is nothing yet.
	MountPath string `json:"mountPath"`
	// The sandbox can't write it. Default: `false`.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Any of `noexec`: no program on it is executed; `nosuid`: set-user-ID means nothing
	// there; `nodev`: device nodes on it are of no device (not with `fileAccess: direct`);
	// `noatime`: reading does not change times of access.
	Options []string `json:"options,omitempty"`
	// A directory or file of the host. No component may be a symbolic link.
	HostPath string `json:"hostPath,omitempty"`
	// An empty filesystem in memory, gone with the sandbox.
	Tmpfs *Tmpfs `json:"tmpfs,omitempty"`
}

// Tmpfs is an empty in-memory filesystem, gone with the sandbox.
type Tmpfs struct {
	// How much it may hold. Default: no limit of its own.
	Size Bytes `json:"size,omitempty"`
}

// Values of Network.Mode.
const (
	NetworkNone  = "none"  // loopback only
	NetworkHost  = "host"  // the host's own network; the host policy must allow it
	NetworkNetns = "netns" // an existing network namespace
)

// Network selects what the sandbox can reach.
type Network struct {
	// `none`: its own loopback. `netns`: the interfaces of a network namespace. `host`:
	// what the host reaches. The host policy must allow the last two.
	Mode string `json:"mode,omitempty"`
	// With `mode: netns`: a name in `/run/netns`, as `ip netns` lists them.
	Netns string `json:"netns,omitempty"`
}

// NetnsPath is where a network namespace of a name is found.
func NetnsPath(name string) string { return "/run/netns/" + name }

// Resources limits the sandbox as a whole (sentry, application and gofer) by
// cgroup. Zero means no limit.
type Resources struct {
	// Processors, such as `500m` or `2`, at least `10m`; parts of a thousandth are rounded
	// up. Default: the host policy's (no limit).
	CPU CPU `json:"cpu,omitempty"`
	// Bytes, such as `256Mi`, at least `32Mi`; `1.2Gi` is rounded up to whole bytes.
	// Default: the host policy's (half of the host's memory).
	Memory Bytes `json:"memory,omitempty"`
	// Processes and threads of the host, at least 64. Default: the host policy's (2048).
	PIDs int64 `json:"pids,omitempty"`
}

// Values of Lifecycle.RestartPolicy.
const (
	RestartAlways    = "Always"
	RestartOnFailure = "OnFailure"
	RestartNever     = "Never"
)

// Backoff delays restarts after failures.
type Backoff struct {
	// The delay after the first failure, doubled for each further one in a row. It is
	// never below `minRestartDelay` of the host policy.
	Initial *Duration `json:"initial,omitempty"`
	// The longest delay.
	Max *Duration `json:"max,omitempty"`
	// A run of this length makes earlier failures count no more.
	ResetAfter *Duration `json:"resetAfter,omitempty"`
	// So many failures in a row, and no start is tried until the manifest changes or
	// `sandboxctl restart`; 0 is no limit. Default: 0.
	Limit int `json:"limit,omitempty"`
}

// Duration is a time.Duration written as in Go: "10s", "1m30s".
type Duration time.Duration

// UnmarshalJSON reads a duration string.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("expected a duration such as \"10s\", got %s", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("expected a duration such as \"10s\", got %q", s)
	}
	*d = Duration(v)
	return nil
}

// Quoted says that a number alone is no duration: it has no unit.
func (Duration) Quoted() {}

// MarshalJSON writes the duration as time.Duration.String does.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).String())
}
