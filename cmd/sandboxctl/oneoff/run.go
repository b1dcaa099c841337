// SPDX-License-Identifier: Apache-2.0

package oneoff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

// daemonPatience is how long a caller waits for a daemon.
const daemonPatience = 5 * time.Second

// NeedDaemon waits a moment for a daemon that is being restarted.
func NeedDaemon(ctx context.Context, h *world.Host) error {
	for until := time.Now().Add(daemonPatience); ; {
		if _, alive := h.ReadDaemon(); alive {
			return nil
		}
		if time.Now().After(until) {
			return errors.New("run needs the daemon, which is not running; start it with `systemctl start sandboxctl` or `sandboxctl daemon`")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(world.WatchEvery):
		}
	}
}

// Incarnation tells the runs of all sandboxes of a name apart.
type Incarnation struct {
	UID     string
	Attempt int64
}

// IncarnationOf is the run that a record is of.
func IncarnationOf(rec *actual.Record) Incarnation { return Incarnation{rec.UID, rec.Attempt} }

// Run is the sandbox that was made for this process.
type Run struct {
	Name   string
	Caller process.Identity

	Seen Incarnation  // when it was ready
	Over atomic.Bool  // the time that it has is
	PID  atomic.Int32 // of the command, 0 before it runs
}

// Ready is await.Ready, for as long as the manifest of the name is that for this process. Somebody
// else's sandbox may have the name as soon as it was made: the command must not run there.
func (r *Run) Ready(w *world.World, name string, s *reconcile.Status) (bool, error) {
	e := w.Entry(name)
	if e != nil && !For(e, r.Caller) {
		return false, errTaken(name)
	}
	ready, err := await.Ready(w, name, s)
	if err != nil || !ready {
		return false, err
	}
	rec := w.Record(name)
	switch {
	case e == nil:
		return false, errTaken(name)
	case rec == nil: // as one that somebody has suspended
		return false, fmt.Errorf("it has not been started: it is %s", s.Phase)
	}
	r.Seen = IncarnationOf(rec)
	return true, nil
}

func errTaken(name string) error {
	return fmt.Errorf("the manifest of %s was changed by somebody else meanwhile, and it is not for this command any more; the command is not started", name)
}

// Began notes the command. One whose time was over before does not run on.
func (r *Run) Began(_ context.Context, pid int32) error {
	r.PID.Store(pid)
	if r.Over.Load() {
		return errors.New("the time was over")
	}
	return nil
}

// GoneOrTaken is await.Deleted, but for a name that somebody else has by now: their sandbox stays.
func GoneOrTaken(w *world.World, name string, s *reconcile.Status) (bool, error) {
	if _, defined := desired.FileFor(w.In.Desired, name); defined {
		return true, nil
	}
	// A start that is cut short has claimed the name, and may have no record and so no status.
	if w.Busy(name) || slices.Contains(w.In.Actual.Aborted, name) {
		return false, nil
	}
	return await.Deleted(w, name, s)
}
