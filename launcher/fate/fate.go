// SPDX-License-Identifier: Apache-2.0

// Package fate finds out how the run of a sandbox ended, for those whose connection to its
// sentry broke.
package fate

import (
	"context"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/cgroup"
)

// How long Of waits for a daemon to find out, and how often it looks.
const (
	fatePatience = 3 * time.Second
	fateEvery    = 20 * time.Millisecond
)

// Of is how the run of a record ended whose sentry has closed the connection, nil
// if nobody knows. The kernel counts a kill because memory ran out before the sentry is
// gone; everything else is the daemon's to find out. A container has none.
func Of(ctx context.Context, store *actual.Store, rec *actual.Record) *actual.Exit {
	ctx, cancel := context.WithTimeout(ctx, fatePatience)
	defer cancel()
	host, err := cgroup.Detect()
	if err != nil {
		return nil
	}
	for {
		if group, err := host.OpenRecorded(cgroup.Place(rec.CgroupPlace), rec.Cgroups); err == nil {
			_, killed := group.OutOfMemory()
			group.Close()
			if killed {
				exit := actual.OOMKilled(time.Now())
				return &exit
			}
		}
		if rec.App().OCI != nil {
			return nil
		}
		now, quarantined, err := store.Get(rec.Name)
		if err != nil || quarantined != nil {
			return nil
		}
		if exit, known := told(rec, now); known {
			return exit
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(fateEvery):
		}
	}
}

// told is what a later record says of the end of a run. known says that more will
// not be known.
func told(rec, now *actual.Record) (exit *actual.Exit, known bool) {
	switch {
	case now == nil, now.UID != rec.UID:
		return &actual.Exit{Reason: actual.ReasonManifestRemoved}, true // with all that was known of it
	case now.Attempt == rec.Attempt && now.Phase == actual.PhaseStopped, now.Attempt == rec.Attempt+1 && now.Phase != actual.PhaseStopped:
		return now.App().LastExit, true
	case now.Attempt > rec.Attempt:
		return nil, true // it has ended once more
	case now.Phase == actual.PhaseStopping && now.Ending != nil && now.Ending.App().Exit == nil:
		// It was ended on purpose.
		return &actual.Exit{Reason: now.Ending.Reason}, true
	}
	return nil, false
}
