// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"encoding/json"
	"fmt"
	"time"
)

// Sandbox is one manifest document: the state its author wants. The author
// owns every field; sandboxctl never writes one back.
type Sandbox struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Spec       Spec     `json:"spec"`
}

// Metadata names a sandbox. Name is a DNS-1123 label, unique in the manifests
// directory. Labels and annotations are carried for the reader and never
// change how a sandbox runs.
type Metadata struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Spec says how a sandbox runs. Field words follow the Kubernetes Pod where
// one exists. A field that is not here is refused, never ignored; what this
// version cannot do yet is named in planned.go.
type Spec struct {
	Root       Root     `json:"root"`
	Overlay    string   `json:"overlay,omitempty"`
	Command    []string `json:"command,omitempty"`
	Args       []string `json:"args,omitempty"`
	Env        []EnvVar `json:"env,omitempty"`
	WorkingDir string   `json:"workingDir,omitempty"`
	User       *User    `json:"user,omitempty"`
	Terminal   bool     `json:"terminal,omitempty"`
	// Init says whether process 1 of the sandbox is an init process of ours, unless
	// the application is one; nil is true.
	Init         *bool         `json:"init,omitempty"`
	Hostname     string        `json:"hostname,omitempty"`
	Capabilities *Capabilities `json:"capabilities,omitempty"`
	Rlimits      []Rlimit      `json:"rlimits,omitempty"`
	Volumes      []Volume      `json:"volumes,omitempty"`
	IDMappings   *IDMappings   `json:"idMappings,omitempty"`
	Network      Network       `json:"network,omitzero"`
	Platform     string        `json:"platform,omitempty"`
	FileAccess   string        `json:"fileAccess,omitempty"`
	Resources    Resources     `json:"resources,omitzero"`
	Lifecycle                  // restart policy, stop and suspend: changes apply without a restart
}

// Lifecycle holds the fields that say when a sandbox runs, not what runs in
// it. They are not part of the spec hash: a change takes effect at the next
// decision, without a restart.
type Lifecycle struct {
	RestartPolicy          string    `json:"restartPolicy,omitempty"`
	Backoff                Backoff   `json:"backoff,omitzero"`
	StopSignal             Signal    `json:"stopSignal,omitempty"`
	TerminationGracePeriod *Duration `json:"terminationGracePeriod,omitempty"`
	Suspend                bool      `json:"suspend,omitempty"`
	// MinReadySeconds is how long a sandbox must run before one who waits for
	// it takes it for ready: a program that ends within that time does not work.
	MinReadySeconds *int `json:"minReadySeconds,omitempty"`
}

// Root selects the root filesystem: exactly one field is set.
type Root struct {
	// Host is a read-only view of the host's /bin, /sbin, /lib*, /usr with a
	// generated minimal /etc.
	Host *HostRoot `json:"host,omitempty"`
	// Dir is the absolute path of a prepared root filesystem.
	Dir string `json:"dir,omitempty"`
	// Bundle is the absolute path of an OCI bundle (config.json and rootfs);
	// the process fields come from it.
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

// PlatformSystrap is the one value of Spec.Platform, in gVisor's words.
const PlatformSystrap = "systrap"

// EnvVar is one environment variable.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

// User is the identity of the application inside the sandbox.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

// Capabilities changes the default capability set of the application
// (gVisor's, inside the sandbox). Names as CAP_NET_RAW or NET_RAW; ALL is
// allowed in Drop.
type Capabilities struct {
	Add  []string `json:"add,omitempty"`
	Drop []string `json:"drop,omitempty"`
}

// Rlimit is one resource limit of the application, as in setrlimit(2).
type Rlimit struct {
	Type string `json:"type"` // RLIMIT_NOFILE or NOFILE
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// IDMappings say who the users and groups of the sandbox are on the host, for
// the files that it is served. Without them ids are the same.
type IDMappings struct {
	UIDs []IDMapping `json:"uids"`
	GIDs []IDMapping `json:"gids"`
}

// IDMapping maps a range of ids, in the words of the OCI runtime specification.
type IDMapping struct {
	ContainerID uint32 `json:"containerID"`
	HostID      uint32 `json:"hostID"`
	Size        uint32 `json:"size"`
}

// Volume mounts one source at MountPath: exactly one of HostPath and Tmpfs is
// set.
type Volume struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
	ReadOnly  bool   `json:"readOnly,omitempty"`
	// Options are those of VolumeOptions.
	Options  []string `json:"options,omitempty"`
	HostPath string   `json:"hostPath,omitempty"`
	Tmpfs    *Tmpfs   `json:"tmpfs,omitempty"`
}

// Tmpfs is an empty in-memory filesystem, gone with the sandbox.
type Tmpfs struct {
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
	Mode string `json:"mode,omitempty"`
	// Netns is the name of a namespace in /run/netns.
	Netns string `json:"netns,omitempty"`
}

// NetnsPath is where a network namespace of a name is found.
func NetnsPath(name string) string { return "/run/netns/" + name }

// Resources limits the sandbox as a whole (sentry, application and gofer) by
// cgroup. Zero means no limit.
type Resources struct {
	CPU    CPU   `json:"cpu,omitempty"`
	Memory Bytes `json:"memory,omitempty"`
	PIDs   int64 `json:"pids,omitempty"`
}

// Values of Lifecycle.RestartPolicy.
const (
	RestartAlways    = "Always"
	RestartOnFailure = "OnFailure"
	RestartNever     = "Never"
)

// Backoff delays restarts after failures: Initial, doubled on each further
// failure up to Max, reset after a run of at least ResetAfter. Limit is the
// number of consecutive failures after which no restart is tried until the
// spec changes or `restart` is called; 0 means no limit.
type Backoff struct {
	Initial    *Duration `json:"initial,omitempty"`
	Max        *Duration `json:"max,omitempty"`
	ResetAfter *Duration `json:"resetAfter,omitempty"`
	Limit      int       `json:"limit,omitempty"`
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
