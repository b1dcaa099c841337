// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"time"

	"sandboxctl.dev/actual/process"
)

// Observed is one sandbox as it is: its record and its processes.
type Observed struct {
	Record *Record // shared, do not modify
	Sentry process.Liveness
	Gofer  process.Liveness
	// Exit is what the sentry left in its exit record, nil when there is none
	// or it belongs to an earlier attempt.
	Exit *Exit
	// GoferExitedCleanly says of a dead gofer that it left as it should, having seen
	// its sentry die. Each ends soon after the other, so that without this
	// nobody could tell who was first.
	GoferExitedCleanly bool
	// Why says why a Liveness is Unknown.
	Why string
}

// Quarantined is a name whose record can't be acted on.
type Quarantined struct {
	Name string `json:"name"`
	// Reason: QuarantinedCorrupt, QuarantinedNewer, QuarantinedUnreadable, QuarantinedForeign.
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Snapshot is actual state at one moment, a value.
type Snapshot struct {
	Sandboxes   []Observed    // sorted by record name, unique
	Quarantined []Quarantined // sorted by name; never acted on, never recreated
	Requests    []Request     // sorted by kind and name
	// Aborted are directories without a record, left by a create that died
	// before its first Put. Nothing lives in them.
	Aborted []string
	BootID  string
	// DiskPressure says what is not done because room ran out on the disk of the
	// state, "" if there is enough.
	DiskPressure string
	// DiskFull says why nothing can be started, "" if something can.
	DiskFull string
}

// Request is something an operator asked of the daemon through a file in
// STATE/requests: it stays until it has been carried out.
type Request struct {
	// Kind is RequestRestart, RequestApprove, RequestRepair or RequestRemove.
	Kind string `json:"kind"`
	// Name is the sandbox to restart, repair or remove.
	Name string `json:"name,omitempty"`
	// Token identifies the request.
	Token string `json:"token"`
	// Checkpoint is the directory of the checkpoint that a restart restores, ""
	// for a fresh start.
	Checkpoint string `json:"checkpoint,omitempty"`
	// End lets a recovery end what lives of the sandbox.
	End bool `json:"end,omitempty"`
	// Names are the sandboxes whose removal is approved.
	Names []string `json:"names,omitempty"`
	// At is when the removal of a sandbox was ordered.
	At time.Time `json:"at,omitzero"`
}

// ID is the token of the request, "" if there is none.
func (r *Request) ID() string {
	if r == nil {
		return ""
	}
	return r.Token
}
