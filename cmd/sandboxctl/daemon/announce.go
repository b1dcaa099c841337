// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

// publish has other programs know what the loop does and waits for.
func (d *daemon) publish(p reconcile.Progress) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode progress: %w", err)
	}
	return d.store.PutProgress(&actual.Progress{Process: d.info.Process, State: b})
}

// describe is what other programs can read of this one.
func describe(version, manifests string, policy reconcile.Policy) (actual.DaemonInfo, error) {
	p, err := json.Marshal(policy)
	if err != nil {
		return actual.DaemonInfo{}, fmt.Errorf("encode policy: %w", err)
	}
	pid := os.Getpid()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return actual.DaemonInfo{}, fmt.Errorf("identify daemon: %w", err)
	}
	defer unix.Close(fd)
	self, err := process.Identify(fd, pid)
	if err != nil {
		return actual.DaemonInfo{}, err
	}
	return actual.DaemonInfo{Version: version, Process: self, StartedAt: time.Now(), ManifestsDir: manifests, Policy: p}, nil
}

// announce tells of what a pass has seen.
func (d *daemon) announce(in *reconcile.Input, plan *reconcile.Plan) {
	d.callers.want(in)
	d.clients.Saw(in, plan)
	d.announceWatch()
	d.announceDisk(in.Actual)
}

// announceWatch tells when changes of the manifests begin to be noticed late,
// and when that is over.
func (d *daemon) announceWatch() {
	why := d.dir.Degraded()
	if why == d.degraded {
		return
	}
	d.degraded = why
	e := actual.Event{Type: actual.EventWarning, Reason: actual.EventWatchDegraded, Message: why}
	if why == "" {
		e = actual.Event{Type: actual.EventNormal, Reason: actual.EventWatchRestored, Message: "changes of the manifests are noticed at once again"}
	}
	d.tell("watch of the manifests", e)
}

// tell writes an event of the host down, and into the log.
func (d *daemon) tell(what string, e actual.Event) {
	level := slog.LevelInfo
	if e.Type == actual.EventWarning {
		level = slog.LevelWarn
	}
	d.log.Log(context.Background(), level, what, "reason", e.Reason, "message", e.Message)
	if err := d.journal.Append(e); err != nil {
		d.log.Warn("event not recorded", "err", err)
	}
}

// announceDisk tells when room begins to be short, and when that is over.
func (d *daemon) announceDisk(have *actual.Snapshot) {
	if full := have.DiskFull != ""; full != d.noRoom {
		if d.noRoom = full; full {
			d.askForSweep()
		}
	}
	why := have.DiskPressure
	if (why == "") == (d.pressure == "") {
		return
	}
	d.pressure = why
	e := actual.Event{Type: actual.EventWarning, Reason: actual.EventDiskPressure, Message: why}
	if why == "" {
		e = actual.Event{Type: actual.EventNormal, Reason: actual.EventDiskPressureOver, Message: "the disk of the state directory has room again"}
	}
	d.tell("disk of the state", e)
}

// remember keeps what the source must know after a restart, and what manifests
// are judged by.
func (d *daemon) remember(removals []time.Time, policy desired.Policy) {
	m := d.dir.Memory()
	digest := ""
	if policy != nil {
		digest = policy.Digest()
	}
	if d.kept && m.Equal(&d.memory) && slices.EqualFunc(removals, d.info.Removals, time.Time.Equal) && digest == d.info.HostPolicy.Digest {
		return
	}
	if digest != d.info.HostPolicy.Digest && digest != "" {
		d.log.Info("host policy", "from", policy.Source(), "digest", digest)
	}
	d.info.Removals, d.info.HostPolicy.Digest, d.kept = removals, digest, false
	b, err := json.Marshal(m)
	if err == nil {
		d.info.Memory = b
		err = d.store.PutDaemonInfo(&d.info)
	}
	if err != nil {
		d.log.Warn("what is known of the manifests directory could not be saved", "err", err)
		return
	}
	d.memory, d.kept = m, true
}
