// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"context"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/reconcile/declared"
)

// Source gives desired state. Load must be cheap when nothing changed.
type Source interface {
	// Load returns the current snapshot. An error is a failure of the source
	// itself; a bad manifest is a Problem in the snapshot.
	Load(ctx context.Context) (*desired.Snapshot, error)
}

// Observer gives actual state.
type Observer interface {
	Observe(ctx context.Context) (*actual.Snapshot, error)
}

// View gathers what there is (see package view).
type View interface {
	// Gather makes an input of what there is now, and of what the loop knows
	// besides: its progress and its last removals.
	Gather(ctx context.Context, p Progress, removals []time.Time) (Input, error)
}

// Launcher carries out the operations. Each is idempotent, safe to
// repeat after a crash at any step, and called for one name by one worker at
// a time. An error whose chain has a `Permanent() bool` method returning true
// can't be cured by trying the same spec again.
type Launcher interface {
	// Create makes a sandbox of the entry from a record that is absent or
	// Stopped (or Creating with dead processes, after a crash), and returns
	// once the application was started. restart is the request to restart that
	// it carries out, nil if none: its token is recorded, and its checkpoint, if
	// it names one, is restored. image is the digest of the image that its root is, ""
	// if it is none; it is in the store, and goes on record. On error nothing is left running and the record, when one could be
	// written, is Stopped with LastExit CreateFailed and Failures counted.
	Create(ctx context.Context, e *desired.Entry, restart *actual.Request, image string) error
	// Resume finishes a Create that was cut short after its gates were opened. If
	// the application turns out to run, the record says so; with start it is
	// started if it was not. Where neither can be told or done, what there is of
	// the sandbox is destroyed with end.
	Resume(ctx context.Context, name string, start bool, end actual.Ending) error
	// Destroy stops the sandbox gracefully, proves both processes dead,
	// releases everything but the record and logs, and leaves the record
	// Stopped. Unknown processes are never killed: an error says so.
	Destroy(ctx context.Context, name string, end actual.Ending) error
	// Remove is Destroy and then Forget, of a sandbox that is not wanted any more. It
	// need not record that it is Stopped in between. stopped is what that record
	// says, nil if the sandbox was not proven dead: on error it is on record then,
	// and what is left to do is Forget.
	Remove(ctx context.Context, name string, end actual.Ending) (stopped *actual.Record, err error)
	// Refresh replaces the files of these volumes of a sandbox that runs by what the entry
	// has now, and sends the application their signals. From before the first file is changed
	// until after the last signal the record has the volumes as pending.
	Refresh(ctx context.Context, e *desired.Entry, volumes []string) error
	// Forget removes the record and logs of a Stopped sandbox.
	Forget(ctx context.Context, name string) error
	// Retire is Forget of one whose manifest is still there: the record stays, without what
	// it holds for the sandbox, and says so.
	Retire(ctx context.Context, name string) error
}

// Repairer puts names right whose record is quarantined. It is called for one name by
// one worker at a time, and never unasked.
type Repairer interface {
	// Repair puts the record back if what lives proves it, or frees the name if
	// nothing lives, and says what it did. Otherwise it ends what lives, if end
	// is set, or fails with what keeps it.
	Repair(ctx context.Context, name string, end bool) (outcome string, err error)
}

// Volumes makes named volumes as they are declared.
type Volumes interface {
	// Declare makes a volume, or changes its size. It is safe to repeat after a crash.
	Declare(ctx context.Context, a *declared.Action) error
}

// Puller fetches images. It is called for one reference by one worker at a time.
type Puller interface {
	// Pull returns the digest of what a request asks for, when that is in the store. It
	// tells report how far it is, as often as it likes. A source that does not have the
	// image gives an error in whose chain is operation.ErrImageNotFound.
	Pull(ctx context.Context, r imageref.PullRequest, report func(operation.PullStep)) (digest string, err error)
}
