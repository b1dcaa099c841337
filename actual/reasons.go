// SPDX-License-Identifier: Apache-2.0

package actual

// Every reason that a record, an event, a condition or an operation can have is
// here, and in docs/reference/status.md. Why the directory of manifests can't be relied on is
// in desired, which knows nothing of this package. No other file spells one out.

// Reasons of operations, and of the Ending of a Destroy.
const (
	ReasonNew              = "New"              // wanted, and there is none
	ReasonExited           = "Exited"           // its application ended
	ReasonSentryKilled     = "SentryKilled"     // the sentry died without an exit record
	ReasonGoferDied        = "GoferDied"        // the gofer died; the pair is torn down
	ReasonHostRebooted     = "HostRebooted"     // its processes were of an earlier boot
	ReasonInterrupted      = "Interrupted"      // an operation was cut short by a crash
	ReasonSpecChanged      = "SpecChanged"      // its manifest changed
	ReasonRestartRequested = "RestartRequested" // an operator asked
	ReasonSuspended        = "Suspended"        // spec.suspend
	ReasonResumed          = "Resumed"          // no longer spec.suspend
	ReasonManifestRemoved  = "ManifestRemoved"  // its manifest is gone
	ReasonBackOff          = "BackOff"          // the delay after a failure is over
	ReasonAborted          = "Aborted"          // a create died before its record
	ReasonNetworkInUse     = "NetworkInUse"     // another sandbox has its network namespace
	ReasonNetworkNotReady  = "NetworkNotReady"  // its network namespace has no interface, or is missing
	ReasonNetworkReplaced  = "NetworkReplaced"  // its network namespace was made anew
	ReasonRecoverRequested = "RecoverRequested" // an operator asked, of a held record
	ReasonDeleted          = "Deleted"          // an OCI client deleted its container
)

// Reasons of an Exit that are not those of an operation too.
const (
	ReasonCompleted    = "Completed"    // exit code 0
	ReasonError        = "Error"        // another exit code
	ReasonSignaled     = "Signaled"     // a signal inside the sandbox
	ReasonOOMKilled    = "OOMKilled"    // the kernel killed it for want of memory
	ReasonCancelled    = "Cancelled"    // its start was cancelled: the reason for it was gone
	ReasonCreateFailed = "CreateFailed" // it could not be started
)

// Reasons of conditions that are not those of an operation or an Exit too.
const (
	ReasonRunning               = "Running"
	ReasonFailed                = "Failed"
	ReasonPending               = "Pending"
	ReasonStarting              = "Starting"
	ReasonStopping              = "Stopping"
	ReasonConverged             = "Converged"
	ReasonCreateRefused         = "CreateRefused"
	ReasonBackoffLimitExceeded  = "BackoffLimitExceeded"
	ReasonApprovalNeeded        = "ApprovalNeeded"
	ReasonSourceIncomplete      = "SourceIncomplete"
	ReasonRecordHeld            = "RecordHeld"
	ReasonProcessUnknown        = "ProcessUnknown"
	ReasonManifestValid         = "Valid"
	ReasonManifestInvalid       = "Invalid"
	ReasonManifestMissing       = "Missing"
	ReasonResourcesEnforced     = "Enforced"
	ReasonResourcesNotEnforced  = "NotEnforced"
	ReasonResourcesNotRequested = "NotRequested"
)

// Reasons of warnings.
const (
	WarningHookFailed          = "HookFailed"          // a hook that changes nothing else
	WarningStopFailed          = "StopFailed"          // it could not be stopped, or what it left not be removed
	WarningResourceNotEnforced = "ResourceNotEnforced" // a limit could not be set on this host
	WarningDefaultNotEnforced  = "DefaultNotEnforced"  // nor a default limit of the host policy
	WarningNetworkGone         = "NetworkGone"         // its network namespace was removed
	WarningNetworkUnconfigured = "NetworkUnconfigured" // of records of earlier versions
)

// Reasons of a Held name.
const (
	HeldCorrupt    = "RecordCorrupt"    // content that can't be relied on
	HeldNewer      = "RecordNewer"      // written by a later version
	HeldUnreadable = "RecordUnreadable" // the system refused to read it
	HeldForeign    = "NotASandbox"      // an entry this program did not make
)

// Reasons of events.
const (
	EventStarted             = "Started"
	EventStopped             = "Stopped"
	EventRecovered           = "Recovered" // what a killed daemon was doing was finished or undone
	EventRemoved             = "Removed"
	EventCancelled           = "Cancelled"
	EventCreateFailed        = "CreateFailed"
	EventResumeFailed        = "ResumeFailed"
	EventDestroyFailed       = "DestroyFailed"
	EventRemoveFailed        = "RemoveFailed"
	EventRecordRecovered     = "RecordRecovered"
	EventRecordRecoverFailed = "RecordRecoverFailed"
	EventRemovalHeld         = "RemovalHeld"
	EventSourceIncomplete    = "SourceIncomplete"
	EventSourceComplete      = "SourceComplete"
	EventFileIgnored         = "FileIgnored" // it is for another program
	EventHeld                = "Held"
	EventProcessUnknown      = "ProcessUnknown"
	EventWatchDegraded       = "WatchDegraded" // changes are noticed late
	EventWatchRestored       = "WatchRestored"
	EventDiskPressure        = "DiskPressure"
	EventDiskPressureOver    = "DiskPressureOver"
)
