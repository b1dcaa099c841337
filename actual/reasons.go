// SPDX-License-Identifier: Apache-2.0

package actual

// Every reason that a record, an event, a condition or an operation can have is
// here. No other file spells one out. Why the directory of manifests can't be relied
// on is in desired, which does not import this package.
//
// The comments are the tables of docs/reference/status.md: write it with
// `make reference`.

// Why an operation is begun.
const (
	// The manifest is new, or the sandbox is missing.
	ReasonNew = "New"
	// Of a named volume: a document declares it, or gives it another size.
	ReasonDeclared = "Declared"
	// Its application ended.
	ReasonExited = "Exited"
	// The sentry died without an exit record: killed from outside, or crashed.
	ReasonSentryKilled = "SentryKilled"
	// The gofer died; the pair was ended.
	ReasonGoferDied = "GoferDied"
	// Its processes were of an earlier boot. It is started again at once; no failure is counted.
	ReasonHostRebooted = "HostRebooted"
	// An operation was cut short by the end of the daemon. It is resumed if its application runs or can still be started, and done again otherwise; no failure is counted.
	ReasonInterrupted = "Interrupted"
	// Its manifest changed.
	ReasonSpecChanged = "SpecChanged"
	// Somebody called `sandboxctl restart` or `restore`.
	ReasonRestartRequested = "RestartRequested"
	// `spec.suspend` is set.
	ReasonSuspended = "Suspended"
	// `spec.suspend` is no longer set, or `spec.until` is a later time now.
	ReasonResumed = "Resumed"
	// It has run for all of its `spec.activeDeadline`. It has failed, and is not started again before its manifest changes or somebody calls `sandboxctl restart`.
	ReasonDeadlineExceeded = "DeadlineExceeded"
	// `spec.until` is over.
	ReasonExpired = "Expired"
	// It has finished, and its `spec.ttlAfterFinished` is over: all but its record is removed.
	ReasonTTLExpired = "TTLExpired"
	// Its manifest is gone from a directory that can be relied on, or `sandboxctl delete` was called.
	ReasonManifestRemoved = "ManifestRemoved"
	// The delay after a failure is over, or not yet.
	ReasonBackOff = "BackOff"
	// A create died before its record was written; its empty directory is removed.
	ReasonAborted = "Aborted"
	// Another sandbox has its network namespace. It is started when that one has ended.
	ReasonNetworkInUse = "NetworkInUse"
	// Its network namespace is missing, or has no interface that is up and has an address. It is started when there is one.
	ReasonNetworkNotReady = "NetworkNotReady"
	// Another sandbox has a port of the host that its manifest publishes. It is started when that is free.
	ReasonPortInUse = "PortInUse"
	// Another sandbox has the address that its manifest asks for, or it is none of the network; or the subnet that a network is to have is another one's, or too small for all.
	ReasonAddressUnusable = "AddressUnusable"
	// It joins a network that no document declares. It is started when there is one.
	ReasonNetworkMissing = "NetworkMissing"
	// The disk of the state has no room, or not enough for what the sandbox may write there
	// (`emptyDir`, `overlay: disk`). Nothing is started, and nothing is stopped that is to be
	// started again, until there is some.
	ReasonDiskPressure = "DiskPressure"
	// As many claims of its pool as that allows have a sandbox. It is started when one of those has finished or is gone.
	ReasonPoolFull = "PoolFull"
	// Its image is being fetched. What runs is not disturbed before that is done.
	ReasonPulling = "Pulling"
	// Its image could not be fetched, and why. This is tried again, at the latest after 5 minutes; what runs is left running.
	ReasonPullFailed = "PullFailed"
	// There is no such image where the reference points, or not in the store with `pullPolicy: Never`. It is looked for again.
	ReasonImageNotFound = "ImageNotFound"
	// Of a pull that was cancelled: no manifest names the image any more.
	ReasonImageNotNeeded = "ImageNotNeeded"
	// Its network namespace was made again. It is started again, in the new one.
	ReasonNetworkReplaced = "NetworkReplaced"
	// Somebody has removed its link to a network. It is started again, with another one.
	ReasonLinkRemoved = "LinkRemoved"
	// The document of a network that it has joined has changed in what only a start changes. It is started again.
	ReasonNetworkChanged = "NetworkChanged"
	// A file or document that its manifest refers to is missing or can't be used. It is started when that is there, and keeps running until then.
	ReasonInputMissing = "InputMissing"
	// A file or document that its manifest refers to has changed. It is started again, with the new content; or with `onChange: signal` given the new content and sent the signal.
	ReasonInputChanged = "InputChanged"
	// Somebody called `sandboxctl repair` for a quarantined record.
	ReasonRepairRequested = "RepairRequested"
	// An OCI client deleted its container.
	ReasonDeleted = "Deleted"
)

// How a run ended. Some of the reasons above say this too.
const (
	// Its application ended with exit code 0.
	ReasonCompleted = "Completed"
	// Its application ended with another exit code.
	ReasonError = "Error"
	// A signal inside the sandbox ended its application.
	ReasonSignaled = "Signaled"
	// It used more memory than `resources.memory` allows, and the kernel killed it: exit code 137.
	ReasonOOMKilled = "OOMKilled"
	// Its start was cancelled, because meanwhile its manifest was removed, changed or
	// suspended, or a restart was asked for; no failure is counted.
	ReasonCancelled = "Cancelled"
	// It could not be started; this is tried again after the back-off.
	ReasonCreateFailed = "CreateFailed"
)

// More reasons of conditions.
const (
	// It runs.
	ReasonRunning = "Running"
	// It ended with a failure and is not started again.
	ReasonFailed = "Failed"
	// It is wanted, and its start has not begun.
	ReasonPending = "Pending"
	// It is being started.
	ReasonStarting = "Starting"
	// It is being stopped.
	ReasonStopping = "Stopping"
	// There is nothing to do.
	ReasonConverged = "Converged"
	// It can't be started as its manifest is. This is not tried again until the manifest
	// changes or somebody calls `sandboxctl restart`.
	ReasonCreateRefused = "CreateRefused"
	// `backoff.limit` failures in a row: edit the manifest or call `sandboxctl restart`.
	ReasonBackoffLimitExceeded = "BackoffLimitExceeded"
	// Its removal waits for approval: see [removing sandboxes](../guide/operating.md#removing-sandboxes).
	ReasonApprovalNeeded = "ApprovalNeeded"
	// The manifests directory can't be relied on, see below. It runs on by its recorded
	// manifest.
	ReasonSourceIncomplete = "SourceIncomplete"
	// Its record can't be acted on, see below.
	ReasonRecordQuarantined = "RecordQuarantined"
	// The system did not tell whether a process lives.
	ReasonProcessUnknown = "ProcessUnknown"
	// Its manifest is valid, and the host policy allows it.
	ReasonManifestValid = "Valid"
	// Its manifest has problems.
	ReasonManifestInvalid = "Invalid"
	// It has no manifest.
	ReasonManifestMissing = "Missing"
	// `spec.resources` are in force.
	ReasonResourcesEnforced = "Enforced"
	// `spec.resources` are not in force: the host lacks the controller that the message
	// names.
	ReasonResourcesNotEnforced = "NotEnforced"
	// The manifest has no `spec.resources`.
	ReasonResourcesNotRequested = "NotRequested"
)

// Recorded warnings. They are in the `warnings` of a status.
const (
	// A poststart or poststop hook of the bundle failed, which changes nothing else.
	WarningHookFailed = "HookFailed"
	// It could not be stopped, or what it left could not be removed, and why. This is tried again; the reason is in the messages of `Ready` and `Reconciling`.
	WarningStopFailed = "StopFailed"
	// A limit of `spec.resources` could not be set on this host.
	WarningResourceNotEnforced = "ResourceNotEnforced"
	// This host can't set a default limit of the host policy.
	WarningDefaultNotEnforced = "DefaultNotEnforced"
	// Another sandbox may write its `hostPath` or named volume too, or a directory in it or above it. Locks
	// do not hold between sandboxes: a database that both use loses data. Say
	// `shared: true` in both if that is intended.
	WarningSharedWrites = "SharedWrites"
	// Its network namespace was removed, or made again and is not ready; it runs on in the old one. Or somebody has removed its link to a network; it is restarted.
	WarningNetworkGone = "NetworkGone"
	// A port is not published, since a program of the host or another sandbox has it, or the
	// sandbox has no address of that family. What the message names is not published; all
	// else is. It is tried again all the time.
	WarningPortNotPublished = "PortNotPublished"
	// Plugins of CNI say that its network is not as they have made it, and what is wrong. It was checked when the daemon was started, and is checked again every minute.
	WarningNetworkCheckFailed = "NetworkCheckFailed"
	// `network.bandwidth` changed, and can't be set up on this host now: what the sandbox had before counts. It is tried again all the time.
	WarningBandwidthNotLimited = "BandwidthNotLimited"
	// The document of a network that it has joined has changed, and it runs with what that said before. It is restarted, if nothing keeps it from that.
	WarningNetworkOutdated = "NetworkOutdated"
	// The firewall of another program drops what the host forwards, and has no rule about
	// sandboxes: see "Beside docker and firewalls" in docs/guide/network.md. No table can
	// let through what another one drops.
	WarningForwardingDropped = "ForwardingDropped"
	// What it was started with, a file or a document, is missing or can't be used now. It keeps what it has, and can't be started again without.
	WarningInputGone = "InputGone"
	// The reference of its image means another image to the store now. It keeps the one that it has.
	WarningImageMoved = "ImageMoved"
	// It was started afresh: there is no snapshot of the name in `spec.snapshot`.
	WarningSnapshotMissing = "SnapshotMissing"
	// It was started afresh: its snapshot is of another gVisor, processor, root or manifest.
	WarningSnapshotUnfit = "SnapshotUnfit"
	// It was started afresh: its snapshot is not what was written.
	WarningSnapshotDamaged = "SnapshotDamaged"
	// It was started afresh: its snapshot could not be restored at the start before.
	WarningSnapshotFailed = "SnapshotFailed"
	// Its application goes on with the environment that is in its snapshot or checkpoint. That of the manifest differs, or can't be compared because values come from files.
	WarningSnapshotEnvironment = "SnapshotEnvironment"
	// On records of earlier versions: it was started without its network. It is started again when there is one.
	WarningNetworkUnconfigured = "NetworkUnconfigured"
)

// Why a record can't be acted on. What runs is left running, and no second one is
// started.
const (
	// It is damaged, missing, or not ours.
	QuarantinedCorrupt = "RecordCorrupt"
	// A later version wrote it: use that version.
	QuarantinedNewer = "RecordNewer"
	// The system refused to read it; this is tried again.
	QuarantinedUnreadable = "RecordUnreadable"
	// An entry of the state directory that this program did not make, or a container of an
	// OCI client.
	QuarantinedForeign = "NotASandbox"
)

// Reasons of events.
const (
	// A sandbox was started.
	EventStarted = "Started"
	// A sandbox was stopped.
	EventStopped = "Stopped"
	// What a killed daemon was doing was finished or undone.
	EventRecovered = "Recovered"
	// A sandbox was removed.
	EventRemoved = "Removed"
	// An operation was ended because the reason for it was gone.
	EventCancelled = "Cancelled"
	// A start failed, and why; it is tried again.
	EventCreateFailed = "CreateFailed"
	// A start that a killed daemon had begun could not be resumed; it is done again.
	EventResumeFailed = "ResumeFailed"
	// A sandbox that runs was given the new files of volumes with `onChange: signal`, and
	// its application was sent the signal.
	EventRefreshed = "Refreshed"
	// New files could not be put into a sandbox that runs, or its application could not be
	// told, and why; this is tried again, at the latest after a minute.
	EventRefreshFailed = "RefreshFailed"
	// A claim was started cold: its pool is to keep places ready, and none was, or none of them is
	// fit for its template.
	EventPoolDrained = "PoolDrained"
	// An image was fetched.
	EventPulled = "Pulled"
	// An image could not be fetched, and why; this is tried again.
	EventPullFailed = "PullFailed"
	// A stop failed, and why; it is tried again.
	EventDestroyFailed = "DestroyFailed"
	// The removal of what is left of a stopped sandbox failed, and why; it is tried again.
	EventRemoveFailed = "RemoveFailed"
	// `sandboxctl repair` put a sandbox right.
	EventRecordRepaired = "RecordRepaired"
	// `sandboxctl repair` did not, and why.
	EventRecordRepairFailed = "RecordRepairFailed"
	// A removal waits for approval.
	EventApprovalNeeded = "ApprovalNeeded"
	// The manifests directory can't be relied on.
	EventSourceIncomplete = "SourceIncomplete"
	// The manifests directory can be relied on again.
	EventSourceComplete = "SourceComplete"
	// A file among the manifests is for another program. Told once, for at most 20 files at
	// a time.
	EventFileIgnored = "FileIgnored"
	// Every user of the host may read a file of the manifests with a Secret.
	EventSecretExposed = "SecretExposed"
	// A record can't be acted on.
	EventRecordQuarantined = "RecordQuarantined"
	// The system did not tell whether a process lives.
	EventProcessUnknown = "ProcessUnknown"
	// Changes of the manifests are noticed late.
	EventWatchDegraded = "WatchDegraded"
	// Changes of the manifests are noticed at once again.
	EventWatchRestored = "WatchRestored"
	// The disk of the state is short of room: see [a full disk](../guide/operating.md#a-full-disk).
	EventDiskPressure = "DiskPressure"
	// There is room again.
	EventDiskPressureOver = "DiskPressureOver"
)
