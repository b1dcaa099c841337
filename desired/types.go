// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"sandboxctl.dev/desired/fromsnapshot"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/desired/lifetime"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/scalar"
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
	// Where writes to the root go: to `memory`, or to the `disk` of the state directory,
	// both gone when the sandbox ends; or, with `none`, through to `root.dir`. An image is
	// never written: with `none` a root of `root.image` is read-only.
	Overlay string `json:"overlay,omitempty"`
	// How much the files that are written to the root may hold. Default: with
	// `overlay: disk` that of the host policy (`1Gi`), with `memory` no limit of its own.
	OverlaySize scalar.Bytes `json:"overlaySize,omitempty"`
	// The program. `$(NAME)` is replaced, see Variables. With `root.image` it replaces
	// the entrypoint of the image, and its arguments too. Default: the image's.
	Command []string `json:"command,omitempty"`
	// The arguments of the program, after those in `command`. With `root.image` they
	// replace the arguments (`CMD`) of the image.
	Args []string `json:"args,omitempty"`
	// Environment variables. `PATH` is set if it is not given. With `root.image` they
	// are set beside those of the image, and win over them.
	Env []EnvVar `json:"env,omitempty"`
	// Many environment variables at once, see Environment from files. A later source
	// replaces variables of an earlier one, and `env` those of all.
	EnvFrom []EnvFrom `json:"envFrom,omitempty"`
	// The working directory. Default: that of the image, or `/`.
	WorkingDir string `json:"workingDir,omitempty"`
	// Who the application is inside the sandbox. Default: the user of the image, or root.
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
	// The time zone of the application: a name such as `Europe/Berlin`, or `host` for that
	// of the host, see Time zones. Default: that of the root.
	Timezone string `json:"timezone,omitempty"`
	// Changes of the default capabilities of the application, inside the sandbox: first
	// `drop`, then `add`.
	Capabilities *Capabilities `json:"capabilities,omitempty"`
	// Limits of the application, as in setrlimit(2). They do not depend on how the
	// daemon was started: see Limits of the application.
	Rlimits []Rlimit `json:"rlimits,omitempty"`
	// Directories and files of the host, named volumes, emptyDir and tmpfs: see Volumes.
	Volumes []Volume `json:"volumes,omitempty"`
	// Who users and groups of the sandbox are on the host: the gofer serves files in a
	// user namespace with these mappings, so that root of the sandbox has no power
	// over what is not mapped. User and group 0 must be mapped. Not possible with
	// `fileAccess: direct`. Default: ids are the same.
	IDMappings *IDMappings `json:"idMappings,omitempty"`
	// What the sandbox can reach: see [Network](../guide/network.md).
	Network networks.Network `json:"network,omitzero"`
	// How gVisor catches system calls.
	Platform string `json:"platform,omitempty"`
	// `proxy`: every file operation goes through the gofer. `direct`: the sentry gets
	// descriptors, which is faster and puts more of the host's kernel in reach. With `root.image`,
	// which no gofer serves, it is about hostPath and named volumes.
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
	// Default: that of the image, or `SIGTERM`.
	StopSignal scalar.Signal `json:"stopSignal,omitempty"`
	// The time between that signal and the kill.
	TerminationGracePeriod *scalar.Duration `json:"terminationGracePeriod,omitempty"`
	// Stop the sandbox and keep its record. Default: `false`.
	Suspend bool `json:"suspend,omitempty"`
	// How long the sandbox must run before `apply --wait` and `wait --for=ready` take
	// it for ready. It does not change the condition `Ready`.
	MinReadySeconds *int `json:"minReadySeconds,omitempty"`
	// What each start begins from: see [Snapshots](../guide/snapshots.md).
	Snapshot *fromsnapshot.Snapshot `json:"snapshot,omitempty"`
	lifetime.Lifetime
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
	// A container image, see [Images](../guide/images.md). The fields from `command` to
	// `user` have their defaults from it.
	Image *ImageRoot `json:"image,omitempty"`
}

// ImageRoot names a container image.
type ImageRoot struct {
	// Where the image is: a name in a registry, completed as docker does
	// (`nginx:1.27` is `docker.io/library/nginx:1.27`); `oci:DIR`, an OCI layout;
	// `archive:FILE`, written by `docker save`, `podman save` or `skopeo`; or `local:NAME`,
	// made with `sandboxctl image import`. After DIR and FILE `:TAG` selects one of several
	// images.
	Ref string `json:"ref"`
	// When the image is fetched. `IfNotPresent`: if it is not in the store. `Always`:
	// also when the sandbox is made, its spec changes, or with `sandboxctl restart`.
	// `Never`: it must be in the store. A change restarts nothing. No policy
	// follows a tag that was moved at a restart after an exit.
	PullPolicy imageref.PullPolicy `json:"pullPolicy,omitempty"`
	// `sha256:` and 64 digits: the image must have this digest, wherever its tag
	// points. Default: what the tag means when the image is fetched.
	Digest string `json:"digest,omitempty"`
}

// HostRoot has no fields: `host: {}`.
type HostRoot struct{}

// Values of Spec.Overlay: where writes to the root go.
const (
	OverlayMemory = "memory" // into the sandbox's memory, gone with it
	OverlayDisk   = "disk"   // into a file on the disk of the state directory, gone with it
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
	// Where the value comes from, instead of `value`.
	ValueFrom *EnvSource `json:"valueFrom,omitempty"`
}

// EnvSource is where the value of one environment variable comes from: exactly one of
// Field, File, Config and Secret is set.
type EnvSource struct {
	// A field of the sandbox itself: `metadata.name`, `metadata.labels['NAME']`,
	// `metadata.annotations['NAME']` or `spec.hostname`; a change of that field then
	// restarts the sandbox. With `network.mode: bridge` also `network.ip`, its address on the
	// first network (IPv4 if it has one), `network.ip['NETWORK']`, and `network.ips`, all of
	// them, separated by commas.
	Field string `json:"field,omitempty"`
	// The absolute path of a file of the host, whose content is the value; a newline at
	// its end is none of it. The host policy must allow it as a `hostPath`.
	File string `json:"file,omitempty"`
	// A value of a [Config document](../guide/environment.md#config-and-secret-documents).
	Config *KeyRef `json:"config,omitempty"`
	// A value of a Secret document.
	Secret *KeyRef `json:"secret,omitempty"`
	// With `file`: the sandbox starts without the variable if there is no such file.
	// Default: `false`.
	Optional bool `json:"optional,omitempty"`
	// Not with `field`: what a change of the value does to a sandbox that runs: `restart`,
	// or `ignore` until its next start. Default: `restart`.
	OnChange string `json:"onChange,omitempty"`
}

// EnvFrom is one source of many environment variables: exactly one of File, Config and
// Secret is set.
type EnvFrom struct {
	// The absolute path of an environment file of the host, which the host policy must
	// allow as that of a `hostPath`. No component may be a symbolic link.
	File string `json:"file,omitempty"`
	// The name of a Config document, all of whose values become variables; also as
	// `{name: NAME}`.
	Config *ObjectName `json:"config,omitempty"`
	// The name of a Secret document, as `config`.
	Secret *ObjectName `json:"secret,omitempty"`
	// How the file is written: `dotenv` as for Compose, with quotes; or `raw` as for
	// `docker run --env-file`, each value is the rest of its line.
	Format string `json:"format,omitempty"`
	// What the name of each variable begins with, before the name in the source.
	Prefix string `json:"prefix,omitempty"`
	// The sandbox starts without the source if there is none. Otherwise it waits for it.
	// Default: `false`.
	Optional bool `json:"optional,omitempty"`
	// What a change of the source does to a sandbox that runs: `restart`, or `ignore`
	// until its next start.
	OnChange string `json:"onChange,omitempty"`
}

// Values of EnvFrom.Format.
const (
	FormatDotenv = "dotenv"
	FormatRaw    = "raw"
)

// Values of EnvFrom.OnChange.
const (
	OnChangeRestart = "restart"
	OnChangeIgnore  = "ignore"
)

// OnChangeSignal is a value of FileSet.OnChange alone.
const OnChangeSignal = "signal"

// User is the identity of the application inside the sandbox: a name, or both ids.
type User struct {
	// With `root.image`: a name in the `/etc/passwd` of the image, or `NAME:GROUP`.
	Name string `json:"name,omitempty"`
	// The user id.
	UID *uint32 `json:"uid,omitempty"`
	// The group id.
	GID *uint32 `json:"gid,omitempty"`
	// Supplementary groups. With `name` they are beside those of `/etc/group`.
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

// Volume mounts one source at MountPath: exactly one of HostPath, Volume, EmptyDir, Tmpfs,
// Config and Secret is set.
type Volume struct {
	// A DNS label, unique in the manifest. Default: with `volume`, the name of that.
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
	// A named volume: a directory that sandboxctl makes when it is first used, and keeps
	// when the sandbox goes. See [Volumes](../guide/volumes.md).
	Volume *NamedVolume `json:"volume,omitempty"`
	// A relative path in the volume: what is there is mounted instead of all of it. In a
	// `hostPath` or named volume that is a directory, no component may be a symbolic link, and
	// in a named volume it is made if it is not there. In `config` and `secret` it is a file
	// or directory of theirs: a file is mounted over one of the root, as nginx.conf.
	SubPath string `json:"subPath,omitempty"`
	// Whom the named volume, or the directory `subPath` of it, belongs to. Default: to root of
	// the sandbox that it was made for. Of a `hostPath`, which must be a directory then, if the
	// host policy allows it (`changeOwner`). Default: what it is on the host. Of `config` and `secret` only `uid` and `gid`: whom the
	// files belong to. Default: to root of the sandbox.
	Ownership *Ownership `json:"ownership,omitempty"`
	// Other sandboxes may write the `hostPath` or named volume too, without a warning. A
	// change restarts nothing. Default: `false`.
	Shared bool `json:"shared,omitempty"`
	// An empty directory for each run of the sandbox, on the disk of the state directory or
	// in memory. It is gone when the sandbox ends, also before a restart.
	EmptyDir *EmptyDir `json:"emptyDir,omitempty"`
	// An empty filesystem in memory, gone with the sandbox.
	Tmpfs *Tmpfs `json:"tmpfs,omitempty"`
	// A read-only directory in memory with files that are in the manifest or on the host.
	Config *FileSet `json:"config,omitempty"`
	// The same for secrets: they are in a Secret document or on the host.
	Secret *FileSet `json:"secret,omitempty"`
}

// NamedVolume is a directory below the state directory. Sandboxes that give the same name
// share it.
type NamedVolume struct {
	// A DNS label: which volume it is. The host policy must allow named volumes.
	Name string `json:"name"`
	// How much it may hold, at least `64Ki`, as in a
	// [Volume document](../guide/volumes.md#a-volume-document): all that give the volume a
	// size must give the same. A change takes effect at once, and restarts nothing. Default:
	// that of the Volume document, or no limit of its own.
	Size scalar.Bytes `json:"size,omitempty"`
}

// Ownership says whom a volume belongs to. What is left out stays as it is.
type Ownership struct {
	// The user of the sandbox.
	UID *uint32 `json:"uid,omitempty"`
	// The group of the sandbox.
	GID *uint32 `json:"gid,omitempty"`
	// The permissions of the directory itself, such as `"2770"`. What is in it keeps its own.
	Mode FileMode `json:"mode,omitempty"`
	// `fresh`: when the directory is made; that of a `hostPath` as long as nothing is in it. `onRootMismatch`: also at a start that finds that
	// the directory itself has another owner or mode; then all that is in it is given to `uid`
	// and `gid`, before the sandbox starts.
	When string `json:"when,omitempty"`
}

// Values of Ownership.When.
const (
	OwnershipFresh    = "fresh"
	OwnershipMismatch = "onRootMismatch"
)

// FileSet are files of a volume in memory.
type FileSet struct {
	// The name of a [Config or Secret document](../guide/environment.md#config-and-secret-documents)
	// whose values are the files, each by its key; instead of `data` and `files`.
	Name string `json:"name,omitempty"`
	// With `name`: only these values are files. Default: all of them.
	Items []KeyItem `json:"items,omitempty"`
	// Files that are in the manifest: the text of each by its name in the volume, such as
	// `app.conf` or `conf.d/app.conf`. Not in a secret.
	Data map[string]string `json:"data,omitempty"`
	// Files of the host: the absolute path of each by its name in the volume. The host
	// policy must allow them as a `hostPath`. They are read when the sandbox starts.
	Files map[string]string `json:"files,omitempty"`
	// The permissions of each file. Default: `"0444"`.
	Mode FileMode `json:"mode,omitempty"`
	// The sandbox starts without files of the host, documents and keys that are not there.
	// Otherwise it waits for them. Default: `false`.
	Optional bool `json:"optional,omitempty"`
	// What a change of a file of the host or of the document does to a sandbox that runs:
	// `restart`; `signal`, which puts the new files into it and then sends `signal` to the
	// application; or `ignore` until its next start. Default: `restart`.
	OnChange string `json:"onChange,omitempty"`
	// With `onChange: signal`: what tells the application to read its files again. One that
	// does not handle the signal is ended by it. Default: `SIGHUP`.
	Signal scalar.Signal `json:"signal,omitempty"`
}

// FileMode are permissions in octal digits. They are quoted: 0400 without quotes is the
// number 256 for one version of YAML and 400 for another.
type FileMode string

// Tmpfs is an empty in-memory filesystem, gone with the sandbox.
type Tmpfs struct {
	// How much it may hold. Default: no limit of its own.
	Size scalar.Bytes `json:"size,omitempty"`
}

// EmptyDir is an empty directory that lasts as long as one run of its sandbox.
type EmptyDir struct {
	// How much its files may hold; then there is no space left on it. Default: with
	// `medium: disk` that of the host policy (`1Gi`), with `memory` no limit of its own.
	Size scalar.Bytes `json:"size,omitempty"`
	// `disk`: the disk of the state directory; the memory limit of the sandbox does not
	// bound it. `memory`: as `tmpfs`. Default: `disk`.
	Medium string `json:"medium,omitempty"`
}

// Values of EmptyDir.Medium.
const (
	MediumDisk   = "disk"
	MediumMemory = "memory"
)

// NetnsPath is where a network namespace of a name is found.
func NetnsPath(name string) string { return "/run/netns/" + name }

// Resources limits the sandbox as a whole (sentry, application and gofer) by
// cgroup. Zero means no limit.
type Resources struct {
	// Processors, such as `500m` or `2`, at least `10m`; parts of a thousandth are rounded
	// up. Default: the host policy's (no limit).
	CPU scalar.CPU `json:"cpu,omitempty"`
	// Bytes, such as `256Mi`, at least `32Mi`; `1.2Gi` is rounded up to whole bytes.
	// Default: the host policy's (half of the host's memory).
	Memory scalar.Bytes `json:"memory,omitempty"`
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
	Initial *scalar.Duration `json:"initial,omitempty"`
	// The longest delay.
	Max *scalar.Duration `json:"max,omitempty"`
	// A run of this length makes earlier failures count no more.
	ResetAfter *scalar.Duration `json:"resetAfter,omitempty"`
	// So many failures in a row, and no start is tried until the manifest changes or
	// `sandboxctl restart`; 0 is no limit. Default: 0.
	Limit int `json:"limit,omitempty"`
}
