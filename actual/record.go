// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/resumption"
	"sandboxctl.dev/actual/upgrade"
)

// RecordVersion is the version this program writes. A record with a newer one
// is quarantined, never acted on and never rewritten.
const RecordVersion = upgrade.RecordVersion

// Phase is how far the single writer of a record got. It is intent, written
// before the effect; what is true of the processes is in Observed.
type Phase string

// The phases of a record.
const (
	// PhaseCreating: intent to create. Processes may exist, waiting at
	// their start gates, or after a crash not at all.
	PhaseCreating Phase = "Creating"
	// PhaseCreated: the control server answered; the application has not been
	// started (the OCI "created" state; a manifest passes through it).
	PhaseCreated Phase = "Created"
	// PhaseStarting: the gates are open and StartRoot is being called. Whether
	// the application runs must be asked of the sentry, not of the record.
	PhaseStarting Phase = "Starting"
	// PhaseRunning: the application was started.
	PhaseRunning Phase = "Running"
	// PhaseStopping: intent to tear down; Ending says why.
	PhaseStopping Phase = "Stopping"
	// PhaseStopped: both processes are proven dead and everything but the
	// record and the logs is gone.
	PhaseStopped Phase = "Stopped"
)

// Record is what is known of one sandbox, kept in STATE/sandboxes/NAME/meta.json.
// It is written only by Store.Put, by one writer at a time.
//
// A sandbox is one sentry that runs containers. What the sentry, its gofer, the
// network and the cgroup are about is here; what one application is about, how it
// ended and how often it was started again, is in its Container.
type Record struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	// UID tells incarnations of a name apart for ever (128 random bits, hex).
	// It is new whenever a name is created after having been forgotten.
	UID string `json:"uid"`
	// Attempt counts Create calls for this UID, from 1.
	Attempt int64 `json:"attempt"`
	// Generation counts the distinct specs this record has had, from 1.
	Generation int64 `json:"generation"`
	Phase      Phase `json:"phase"`

	// Spec is the last good desired.Sandbox in canonical JSON, SpecHash its
	// versioned hash; both are opaque here. The manifest is the sandbox's: it has its
	// network, hostname and limits too. The OCI spec of each container is in SetupFile.
	Spec     json.RawMessage `json:"spec,omitempty"`
	SpecHash string          `json:"specHash,omitempty"`
	// SourceFile is the manifest it came from, relative to the manifests
	// directory.
	SourceFile string `json:"sourceFile,omitempty"`
	// SourceDigest identifies the text of the manifest document and the build
	// of the program that made Spec of it. The same build need not parse the same
	// text again.
	SourceDigest string `json:"sourceDigest,omitempty"`
	// Containers are what runs in the sandbox: today one, named AppName.
	Containers []Container `json:"containers"`
	// RestartToken is the last restart request that has been carried out.
	RestartToken string `json:"restartToken,omitempty"`

	// BootID is the host boot in which Sentry and Gofer lived.
	BootID string            `json:"bootID,omitempty"`
	Sentry *process.Identity `json:"sentry,omitempty"`
	Gofer  *process.Identity `json:"gofer,omitempty"`
	// SentryBinary and GoferBinary are the paths of the programs that run it, GVisor
	// the version of both. GoferBinary is empty if the sandbox was started when
	// sandboxctl itself was the gofer.
	SentryBinary string `json:"sentryBinary,omitempty"`
	GoferBinary  string `json:"goferBinary,omitempty"`
	GVisor       string `json:"gvisor,omitempty"`
	// SetupFile says that what was built is in SetupFile, beside the record. Versions
	// before 3 wrote none.
	SetupFile bool `json:"setupFile,omitempty"`
	// Cgroups are the cgroup directories made for this sandbox.
	Cgroups []string `json:"cgroups,omitempty"`
	// CgroupPlace is where an OCI client wanted them, below the root of every
	// hierarchy.
	CgroupPlace string `json:"cgroupPlace,omitempty"`
	// Network is what was detached for the sandbox from a network namespace of the host,
	// to be put back when it has ended.
	Network *Network `json:"network,omitempty"`
	// CNI is what plugins of CNI have made for the sandbox, or may have: on record before the
	// first one is started, until all of it is undone.
	CNI *CNI `json:"cni,omitempty"`
	// MoreCNI are those on further networks, in the same namespace.
	MoreCNI []CNI `json:"moreCNI,omitempty"`
	// Attachments are the sandbox's on networks: on record before anything is made of
	// them, and kept when it is stopped, so that it has its addresses again.
	Attachments []Attachment `json:"attachments,omitempty"`
	// Files are the single files of the host that the sandbox was given.
	Files []SharedFile `json:"files,omitempty"`
	// OnDisk is what the sandbox writes to the disk of the state directory.
	OnDisk []OnDisk `json:"onDisk,omitempty"`
	// Inputs are what the last start has read that the manifest refers to.
	Inputs []Input `json:"inputs,omitempty"`
	// InputChanges is how many starts in a row have read something else than the one
	// before, each soon after it: who writes a file again and again must not have its
	// sandboxes started as often.
	InputChanges int `json:"inputChanges,omitempty"`
	// Refresh is about what it was given since, without a start: see Refreshing.
	Refresh *Refresh `json:"refresh,omitempty"`
	// Retired says that nothing but this record is kept of a sandbox that has finished: its
	// ttlAfterFinished is over.
	Retired bool `json:"retired,omitempty"`
	// Warnings are things that were asked for and could not be had on this
	// host, such as resource limits without a cgroup controller.
	Warnings []Warning `json:"warnings,omitempty"`

	CreatedAt time.Time `json:"createdAt,omitzero"`
	// Start says how long the phases of its last start took. It is replaced, never
	// changed.
	Start *Start `json:"start,omitempty"`
	// Ending says why the sandbox is being or was torn down.
	Ending *Ending `json:"ending,omitempty"`
}

// AppName is the name of the container that every sandbox has.
const AppName = upgrade.AppName

// Container is what is known of one container of a sandbox.
type Container struct {
	// Name tells it from the other ones of its sandbox. Its log file has this name.
	Name string `json:"name"`
	// OCI is set for a container of an OCI client, which has no manifest.
	OCI *OCIContainer `json:"oci,omitempty"`
	// Init says whether process 1 of the container is an init process of ours, InitOwn,
	// or why not. It is empty if the container was started before there was one.
	Init string `json:"init,omitempty"`
	// Image is that of its root, nil if its root is none.
	Image *Image `json:"image,omitempty"`
	// Hooks are what runs on the host when the container has ended, opaque here. They
	// are set from before its first hooks run until its last ones have run.
	Hooks json.RawMessage `json:"hooks,omitempty"`

	StartedAt time.Time `json:"startedAt,omitzero"`
	// Active is what counts for its activeDeadline; Finished is when Completed came true.
	Active   *moment.Active `json:"active,omitempty"`
	Finished *moment.Moment `json:"finished,omitempty"`
	// Failures counts consecutive failures (see ContainerEnding.Failures); Restarts
	// counts those (see NextAttempt).
	Failures int `json:"failures,omitempty"`
	// CleanExits counts ends with exit code 0 in a row: they delay the next start
	// as failures do, and are none.
	CleanExits int   `json:"cleanExits,omitempty"`
	Restarts   int64 `json:"restarts,omitempty"`
	// Resumption is about the saved state that its last start began from, nil of a fresh one.
	Resumption *resumption.Resumption `json:"resumption,omitempty"`
	// LastExit says how its last run ended.
	LastExit *Exit `json:"lastExit,omitempty"`
	// Completed says the run-to-completion is over for the spec: it is not
	// started again although its manifest is still there.
	Completed bool `json:"completed,omitempty"`
}

// Image is the image that a container was started from. What its reference means later
// changes nothing.
type Image struct {
	// The reference, in full.
	Ref string `json:"ref"`
	// The digest that it meant.
	Digest string `json:"digest"`
	// The signal that asks its application to end, if the image says one.
	StopSignal string `json:"stopSignal,omitempty"`
}

// App is the container named AppName, which every record has.
func (r *Record) App() *Container { return &r.Containers[0] }

// Clone is a copy that can be changed: transitions of one record are not seen by
// readers of the other.
func (r *Record) Clone() *Record {
	c := *r
	c.Containers = slices.Clone(r.Containers)
	return &c
}

// Runtime describes the sentry that runs it, "" if there has been none.
func (r *Record) Runtime() string {
	if r.GVisor == "" {
		return r.SentryBinary
	}
	return r.SentryBinary + " (gVisor " + r.GVisor + ")"
}

// InitOwn is Container.Init of a container whose process 1 is our init process.
const InitOwn = "sandboxctl-init"

// SharedFile is a file of the host in a sandbox: the one that had the path when
// the sandbox was started.
type SharedFile struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// Replaced says whether the path is of another file by now, or of none.
func (f *SharedFile) Replaced() (bool, error) {
	var st unix.Stat_t
	switch err := unix.Lstat(f.Path, &st); {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("look at %s: %w", f.Path, err)
	}
	return st.Dev != f.Device || st.Ino != f.Inode, nil
}

// OnDisk is something that a sandbox writes to the disk of the state directory. It is in a
// file without a name, which the sentry alone has and which is gone with it.
type OnDisk struct {
	// The name of the volume, or nothing for what is written to the root.
	Volume string `json:"volume,omitempty"`
	// How many bytes its files may hold.
	Size int64 `json:"size"`
	// FD is the number of the file in the sentry.
	FD int `json:"fd"`
}

// Input is something that a manifest refers to, as a start has read it.
type Input struct {
	// File is the path of a file of the host.
	File string `json:"file,omitempty"`
	// ID is another one when the content has changed, "" if there was none. Nothing can be
	// found out from it about the content.
	ID string `json:"id,omitempty"`
}

// Refresh says how volumes of a sandbox that runs were given new files. It is replaced,
// never changed.
type Refresh struct {
	// The volumes whose files are being replaced, or were when the daemon died: that is begun
	// again until the application has been told.
	Pending []string `json:"pending,omitempty"`
	// When the last one was begun.
	At time.Time `json:"at,omitzero"`
	// How many were finished.
	Count int64 `json:"count,omitempty"`
}

// Network is what was detached from a network namespace for a sandbox.
type Network struct {
	// Path and Inode say which namespace; without a path it was the sandbox's
	// own and is gone with it.
	Path  string `json:"path,omitempty"`
	Inode uint64 `json:"inode,omitempty"`
	// Config is opaque here.
	Config json.RawMessage `json:"config"`
}

// CNI is what plugins of CNI are asked for. It is replaced, never changed.
type CNI struct {
	// Network is the name of the network; Config is how it was configured at the start, which
	// is what the end is told too.
	Network string          `json:"network"`
	Config  json.RawMessage `json:"config"`
	// ContainerID, the path Netns and Interface are what plugins know the sandbox by.
	ContainerID string `json:"containerID"`
	Netns       string `json:"netns"`
	Interface   string `json:"interface"`
	// Ports are the argument of the capability portMappings.
	Ports json.RawMessage `json:"ports,omitempty"`
	// Result is what ADD has returned, nil before.
	Result json.RawMessage `json:"result,omitempty"`
	// CheckFails is what CHECK said right after ADD, "" if it passed: of plugins that find
	// fault with what they have just made, nothing is learned later.
	CheckFails string `json:"checkFails,omitempty"`
}

// Attachment is how a sandbox is attached to a network.
type Attachment struct {
	Network string `json:"network"`
	// Link is the name of the host's end of the link, Interface that of the sandbox's.
	Link      string `json:"link"`
	Interface string `json:"interface"`
	// The subnets of the network, whose first addresses are the host's on the link, and the
	// addresses of the sandbox; zero without the family.
	Subnet4  netip.Prefix `json:"subnet4,omitzero"`
	Address4 netip.Addr   `json:"address4,omitzero"`
	Subnet6  netip.Prefix `json:"subnet6,omitzero"`
	Address6 netip.Addr   `json:"address6,omitzero"`
	MTU      int          `json:"mtu"`
	// Default says that its default routes lead there.
	Default bool `json:"default,omitempty"`
	// Internal, Isolated and NoIPv6 are what the network was when the sandbox was started.
	// Without NoIPv6 it may be the kernel that has no IPv6.
	Internal bool `json:"internal,omitempty"`
	Isolated bool `json:"isolated,omitempty"`
	NoIPv6   bool `json:"noIPv6,omitempty"`
}

// OCIContainer is what OCI clients want to know of a container.
type OCIContainer struct {
	// Bundle is the absolute path of its bundle.
	Bundle      string            `json:"bundle"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Paused says that its processes have been stopped by Pause.
	Paused bool `json:"paused,omitempty"`
}

// Warning is a condition that came up while a sandbox was created.
type Warning struct {
	// One of the recorded warnings.
	Reason string `json:"reason"`
	// The reason in a sentence.
	Message string `json:"message"`
}

// Exit is how a run ended.
type Exit struct {
	// Whether code and signal are known. Without an exit record (the sentry was killed)
	// they are not.
	Known bool `json:"known"`
	// The application's exit code, 0 to 255, or 128 plus the signal that ended it.
	Code int `json:"code"`
	// The signal that ended it.
	Signal int `json:"signal,omitempty"`
	// One of the reasons, such as `Completed`, `SentryKilled` or `CreateFailed`.
	Reason string `json:"reason"`
	// The reason in a sentence.
	Message string `json:"message,omitempty"`
	// When.
	At time.Time `json:"at"`
	// Trying again with the same spec can't help.
	Permanent bool `json:"permanent,omitempty"`
	// Something on the host or in the root must be changed first: the command, a source of
	// a volume. The start is tried again, in case somebody does; a verb that waits does not
	// wait for that.
	PreconditionFailed bool `json:"preconditionFailed,omitempty"`
	// HostSignaled says that the application ended after the host had told its
	// sentry to end. It is what a look says of a sandbox, and no part of the record.
	HostSignaled bool `json:"-"`
}

// Ending is the planner's order for a tear-down, written into the record
// before anything is stopped so that a crash half-way is finished the same way.
type Ending struct {
	// Reason is one of reasons.go, such as Exited or SpecChanged.
	Reason string `json:"reason"`
	// StopSignal and Grace: the application gets the signal and this much
	// time before it is killed. A dead sandbox is only cleaned up.
	StopSignal string        `json:"stopSignal,omitempty"`
	Grace      time.Duration `json:"grace,omitempty"` // ns
	// Until is the spec.until that was over.
	Until time.Time `json:"until,omitzero"`
	// Containers say what is to be remembered of each container.
	Containers []ContainerEnding `json:"containers,omitempty"`
	// Replace says that the sandbox is stopped to be started anew: that is not
	// begun where there is no room for the new one.
	Replace bool `json:"-"`
}

// EndsTheRun says whether what follows is a new run, for which the time that the sandbox has had
// does not count. Its next start and who looks before that must not see it differently.
func (e *Ending) EndsTheRun() bool {
	return e != nil && (e.Reason == ReasonSuspended || e.TimeOver())
}

// TimeOver says whether the sandbox has had all the time that its manifest gives it.
func (e *Ending) TimeOver() bool {
	return e != nil && (e.Reason == ReasonDeadlineExceeded || e.Reason == ReasonExpired)
}

// ContainerEnding is what an Ending says of one container.
type ContainerEnding struct {
	Name string `json:"name"`
	// Exit, when set, becomes Container.LastExit.
	Exit *Exit `json:"exit,omitempty"`
	// Failures, CleanExits and Completed become those of the container.
	Failures   int  `json:"failures,omitempty"`
	CleanExits int  `json:"cleanExits,omitempty"`
	Completed  bool `json:"completed,omitempty"`
}

// App is what the order says of the container named AppName: nothing is remembered of
// one that it doesn't name.
func (e *Ending) App() ContainerEnding {
	if len(e.Containers) == 0 {
		return ContainerEnding{Name: AppName}
	}
	return e.Containers[0]
}
