// SPDX-License-Identifier: Apache-2.0

package crashpoint

// Point is the name of a side effect.
type Point string

// Of a daemon's start.
const (
	// StateDirectory makes the state directory and those in it (actual/store.go).
	StateDirectory Point = "state-directory"
	// Lock takes the lock of the state directory (actual/lock.go).
	Lock Point = "lock"
	// LockFile writes who holds it (actual/lock.go).
	LockFile Point = "lock-file"
	// TrashSweep removes one directory that a daemon before left in the trash
	// (actual/remove.go).
	TrashSweep Point = "trash-sweep"
	// TempSweep removes a temporary file that a writer before left
	// (actual/atomicfile/atomicfile.go).
	TempSweep Point = "temp-sweep"
	// JournalOpen creates or opens the event journal (actual/journal.go).
	JournalOpen Point = "journal-open"
	// JournalMend ends a line that a writer before did not (actual/journal.go).
	JournalMend Point = "journal-mend"
	// JournalAppend writes an event (actual/journal.go).
	JournalAppend Point = "journal-append"
	// JournalRotate renames a full journal (actual/journal.go).
	JournalRotate Point = "journal-rotate"
	// DaemonInfo writes what the daemon says of itself (actual/daemon.go).
	DaemonInfo Point = "daemon-info"
	// ProgressPut writes what the daemon does and waits for (actual/progress.go).
	ProgressPut Point = "progress-put"
	// RequestDrop removes a request that has been carried out (actual/request.go).
	RequestDrop Point = "request-drop"
)

// Of the atomic writer.
const (
	// FileCreate creates the temporary file (actual/atomicfile/atomicfile.go).
	FileCreate Point = "file-create"
	// FileWrite writes it (actual/atomicfile/atomicfile.go).
	FileWrite Point = "file-write"
	// FileSync forces it to disk (actual/atomicfile/atomicfile.go).
	FileSync Point = "file-sync"
	// FileRename puts it in the place of the old one
	// (actual/atomicfile/atomicfile.go).
	FileRename Point = "file-rename"
	// DirectorySync forces the directory to disk (actual/atomicfile/atomicfile.go).
	DirectorySync Point = "directory-sync"
	// ReserveWrite writes over a file of the reserve
	// (actual/atomicfile/reserve.go).
	ReserveWrite Point = "reserve-write"
	// ReserveSwap puts it in the place of the old file
	// (actual/atomicfile/reserve.go).
	ReserveSwap Point = "reserve-swap"
	// FileRemove removes a file (actual/atomicfile/atomicfile.go).
	FileRemove Point = "file-remove"
	// PendingCreate creates a large file under a temporary name
	// (actual/atomicfile/pending.go).
	PendingCreate Point = "pending-create"
	// PendingSync forces it to disk (actual/atomicfile/pending.go).
	PendingSync Point = "pending-sync"
	// PendingRename gives it its name (actual/atomicfile/pending.go).
	PendingRename Point = "pending-rename"
	// PendingUnlink takes the name of a file that is to have none
	// (actual/atomicfile/pending.go).
	PendingUnlink Point = "pending-unlink"
)

// Of the store of images.
const (
	// PullDirectory makes the directory that layers are kept in during a pull
	// (launcher/image/claim.go).
	PullDirectory Point = "pull-directory"
	// PullCreate creates the file of a layer (launcher/image/puller/fetch.go).
	PullCreate Point = "pull-create"
	// PullWrite writes a part of it (launcher/image/puller/fetch.go).
	PullWrite Point = "pull-write"
	// PullRename says that the layer is complete (launcher/image/puller/fetch.go).
	PullRename Point = "pull-rename"
	// PullRemove removes a layer, or the directory (launcher/image/claim.go).
	PullRemove Point = "pull-remove"
	// MergeWrite writes a part of an image (launcher/image/puller/room.go).
	MergeWrite Point = "merge-write"
	// MergePunch gives back the room of what a later layer has removed
	// (launcher/image/puller/room.go).
	MergePunch Point = "merge-punch"
)

// Of a create.
const (
	// Claim makes the directory of a sandbox (actual/store.go).
	Claim Point = "claim"
	// RecordPut writes a record (actual/store.go).
	RecordPut Point = "record-put"
	// SetupPut writes down what is built (actual/setup.go).
	SetupPut Point = "setup-put"
	// LogDirectory makes the directory of the logs of all attempts, or of one
	// (launcher/logs/logs.go).
	LogDirectory Point = "log-directory"
	// LogOwner gives it to the gofer's user (launcher/logs/logs.go).
	LogOwner Point = "log-owner"
	// LogRemove moves the logs of an attempt long ago into the trash
	// (actual/remove.go).
	LogRemove Point = "log-remove"
	// CgroupParent makes a cgroup that a sandbox's is in (launcher/cgroup/place.go).
	CgroupParent Point = "cgroup-parent"
	// CgroupCreate makes one directory of a sandbox's cgroup
	// (launcher/cgroup/place.go).
	CgroupCreate Point = "cgroup-create"
	// CgroupLimit sets one limit (launcher/cgroup/host.go).
	CgroupLimit Point = "cgroup-limit"
	// CgroupAdd moves a process into one directory (launcher/cgroup/group.go).
	CgroupAdd Point = "cgroup-add"
	// ControlUnlink removes the control socket of an attempt before
	// (launcher/sentry/socket.go).
	ControlUnlink Point = "control-unlink"
	// ControlBind makes the control socket (launcher/sentry/socket.go).
	ControlBind Point = "control-bind"
	// ExitFile creates the exit record that a sentry or a gofer will fill
	// (launcher/pair/exitfile.go).
	ExitFile Point = "exit-file"
	// GoferLog creates the file of a gofer's own words (launcher/pair/spawn.go).
	GoferLog Point = "gofer-log"
	// SentrySpawn starts the sentry, gated (launcher/pair/spawn.go).
	SentrySpawn Point = "sentry-spawn"
	// GoferSpawn starts the gofer, gated (launcher/pair/spawn.go).
	GoferSpawn Point = "gofer-spawn"
	// GoferGate lets the gofer go (launcher/pair/pair.go).
	GoferGate Point = "gofer-gate"
	// SentryGate lets the sentry go (launcher/pair/pair.go).
	SentryGate Point = "sentry-gate"
	// VolumeStore makes the directory of named volumes (launcher/volume/store.go).
	VolumeStore Point = "volume-store"
	// VolumeMake makes the directory of a volume (launcher/volume/use.go).
	VolumeMake Point = "volume-make"
	// VolumeData makes the directory of its files (launcher/volume/use.go).
	VolumeData Point = "volume-data"
	// VolumeOwner gives that to its first owner (launcher/volume/use.go).
	VolumeOwner Point = "volume-owner"
	// VolumeChown gives one file of a volume to another owner
	// (launcher/volume/owner.go).
	VolumeChown Point = "volume-chown"
	// VolumeRoot gives the volume itself to it, which ends that
	// (launcher/volume/owner.go).
	VolumeRoot Point = "volume-root"
	// VolumeSubPath makes a directory that a manifest names in a volume
	// (launcher/volume/use.go).
	VolumeSubPath Point = "volume-sub-path"
	// VolumeEntry restores an entry of an archive (launcher/volume/restore.go).
	VolumeEntry Point = "volume-entry"
	// VolumeWrite writes a part of a file that is restored (launcher/volume/restore.go).
	VolumeWrite Point = "volume-write"
	// VolumeSync forces what was restored to disk (launcher/volume/restore.go).
	VolumeSync Point = "volume-sync"
	// BackupEntry writes an entry of a backup (launcher/volume/backup.go).
	BackupEntry Point = "backup-entry"
	// VolumeProjects writes down which projects volumes have had (launcher/projquota/ids.go).
	VolumeProjects Point = "volume-projects"
	// VolumeProject makes the directory of a volume a project (launcher/volume/size.go).
	VolumeProject Point = "volume-project"
	// VolumeLimit limits what a volume may hold (launcher/volume/size.go).
	VolumeLimit Point = "volume-limit"
	// VolumeMeta writes what has changed of a volume (launcher/volume/store.go).
	VolumeMeta Point = "volume-meta"
	// VolumeTrash moves a volume into the trash (launcher/volume/remove.go).
	VolumeTrash Point = "volume-trash"
	// SnapshotStore makes the directory of snapshots (launcher/snapshot/store.go).
	SnapshotStore Point = "snapshot-store"
	// SnapshotMake makes the directory of one that is not whole
	// (launcher/snapshot/create.go).
	SnapshotMake Point = "snapshot-make"
	// SnapshotWrite writes a part of its state (launcher/snapshot/create.go).
	SnapshotWrite Point = "snapshot-write"
	// SnapshotSync forces that to disk (launcher/snapshot/create.go).
	SnapshotSync Point = "snapshot-sync"
	// SnapshotCommit gives it its name (launcher/snapshot/create.go).
	SnapshotCommit Point = "snapshot-commit"
	// SnapshotTrash moves a snapshot into the trash (launcher/snapshot/store.go).
	SnapshotTrash Point = "snapshot-trash"
	// Restore has a sentry restore a state (launcher/snapshot/restore.go).
	Restore Point = "restore"
	// OnRestore runs the command for that (launcher/snapshot/restore.go).
	OnRestore Point = "on-restore"
	// SubnetPut writes down which subnets a network has (launcher/bridge/subnets.go).
	SubnetPut Point = "subnet-put"
	// ForwardingPut writes down what of the host's settings is about to be changed
	// (launcher/bridge/forwarding.go).
	ForwardingPut Point = "forwarding-put"
	// InForcePut writes down which spec.network of a sandbox is about to be in force
	// (launcher/inforce/inforce.go).
	InForcePut Point = "in-force-put"
	// NamesMake makes the directory with the names that a sandbox sees
	// (launcher/bridge/hosts.go).
	NamesMake Point = "names-make"
	// NamesWrite writes the hosts file of a sandbox (launcher/bridge/hosts.go).
	NamesWrite Point = "names-write"
	// RulesInstall installs the rules of all networks (launcher/bridge/linger.go).
	RulesInstall Point = "rules-install"
	// FlowsPut writes down by which rules connections were let through
	// (launcher/bridge/judged.go).
	FlowsPut Point = "flows-put"
	// LinkAdd makes the link of a sandbox to a network (launcher/links/attach.go).
	LinkAdd Point = "link-add"
	// LinkHost sets up the host's end of a link (launcher/links/attach.go).
	LinkHost Point = "link-host"
	// LinkGuest sets up the sandbox's end of a link (launcher/links/attach.go).
	LinkGuest Point = "link-guest"
	// NetworkTake has the kernel no longer serve an address of an interface that is
	// passed through (launcher/netns/config.go).
	NetworkTake Point = "network-take"
	// NetworkPin gives the network namespace of a sandbox a name (launcher/netns/pin.go).
	NetworkPin Point = "network-pin"
	// CNIAdd has a plugin of CNI make its part of a network (launcher/cni/attach.go).
	CNIAdd Point = "cni-add"
	// SetNetwork tells the sentry what its network is (launcher/sentry/control.go).
	SetNetwork Point = "set-network"
	// StartRoot starts the application (launcher/pair/warm.go).
	StartRoot Point = "start-root"
)

// Of a gofer's start, in its own process.
const (
	// GoferRelease waits at the start gate until that is open (gofer/server/main.go).
	GoferRelease Point = "gofer.release"
	// GoferPrivate makes its mounts private (gofer/server/jail.go).
	GoferPrivate Point = "gofer.private"
	// GoferRoot attaches the new root (gofer/server/jail.go).
	GoferRoot Point = "gofer.root"
	// GoferTree attaches one served tree (gofer/server/jail.go).
	GoferTree Point = "gofer.tree"
	// GoferPivot makes it the root (gofer/server/jail.go).
	GoferPivot Point = "gofer.pivot"
	// GoferDetach gives the host's tree up (gofer/server/jail.go).
	GoferDetach Point = "gofer.detach"
	// GoferReadOnly makes the jail read-only (gofer/server/jail.go).
	GoferReadOnly Point = "gofer.read-only"
	// GoferPrivileges gives privileges up (gofer/server/main.go).
	GoferPrivileges Point = "gofer.privileges"
	// GoferServe starts to serve one tree (gofer/server/main.go).
	GoferServe Point = "gofer.serve"
)

// Of new files for a sandbox that runs.
const (
	// RefreshWrite replaces the files of its volumes (launcher/refresh/refresh.go).
	RefreshWrite Point = "refresh-write"
	// RefreshSignal tells the application (launcher/refresh/refresh.go).
	RefreshSignal Point = "refresh-signal"
)

// Of a tear-down.
const (
	// StopSignal asks the application to leave (launcher/destroy.go).
	StopSignal Point = "send-stop-signal"
	// KillSentry kills the sentry and waits for its death (launcher/destroy.go).
	KillSentry Point = "kill-sentry"
	// KillGofer lets the gofer leave or kills it (launcher/destroy.go).
	KillGofer Point = "kill-gofer"
	// CgroupKill kills what is left in the cgroup (launcher/cgroup/group.go).
	CgroupKill Point = "cgroup-kill"
	// CgroupRemove removes one directory of the cgroup (launcher/cgroup/group.go).
	CgroupRemove Point = "cgroup-remove"
	// NetworkReturn puts an address, route or neighbor back
	// (launcher/netns/config.go).
	NetworkReturn Point = "network-return"
	// CNIDel has a plugin of CNI undo its part of a network (launcher/cni/attach.go).
	CNIDel Point = "cni-del"
	// NetworkUnpin removes the name of the network namespace (launcher/netns/pin.go).
	NetworkUnpin Point = "network-unpin"
	// NetworkUnlink removes its file, which no mount is on any more (launcher/netns/pin.go).
	NetworkUnlink Point = "network-unlink"
	// ControlRemove removes the control socket (launcher/destroy.go).
	ControlRemove Point = "control-remove"
	// SetupRemove removes what was written down of the set-up (actual/setup.go).
	SetupRemove Point = "setup-remove"
	// CopyRemove removes the second copy of the record (actual/damaged.go).
	CopyRemove Point = "copy-remove"
	// LogKeep moves the logs of a sandbox that is being removed to those of deleted
	// sandboxes (actual/deleted.go).
	LogKeep Point = "log-keep"
	// TrashMove moves a sandbox's directory into the trash (actual/remove.go).
	TrashMove Point = "trash-move"
	// TreeUnlink removes a file of it (actual/untrusted/remove.go).
	TreeUnlink Point = "tree-unlink"
	// TreeMove moves a directory of it that is not empty up
	// (actual/untrusted/remove.go).
	TreeMove Point = "tree-move"
	// TreeRemove removes an empty directory of it (actual/untrusted/remove.go).
	TreeRemove Point = "tree-remove"
	// WaitingStart starts a sentry or a gofer that waits for a sandbox (launcher/pair/waiting.go).
	WaitingStart Point = "waiting-start"
	// WaitingRecord writes down which processes wait (launcher/warm/record.go).
	WaitingRecord Point = "waiting-record"
	// WaitingHand tells a process that waits what to become (launcher/proc/waiting.go).
	WaitingHand Point = "waiting-hand"
	// WarmDirectory makes the directory of a warm sentry (launcher/pair/warm.go).
	WarmDirectory Point = "warm-directory"
	// WarmClaim tells a warm sentry whose it is (launcher/proc/waiting.go).
	WarmClaim Point = "warm-claim"
	// WarmMove moves its files into the directory of a sandbox (launcher/pair/warm.go).
	WarmMove Point = "warm-move"
	// WarmCreate has it make the container of the application (launcher/pair/warm.go).
	WarmCreate Point = "warm-create"
	// WarmStart has it start the application (launcher/pair/warm.go).
	WarmStart Point = "warm-start"
)
