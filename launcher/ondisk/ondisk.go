// SPDX-License-Identifier: Apache-2.0

// Package ondisk keeps what sandboxes may write to the disk of the state directory (emptyDir
// volumes, overlays) within the room that there is. Each has a size; what all of them may
// still write must fit when one is started, so that no guest fills the disk that records
// and logs are on.
package ondisk

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/launcher/procfs"
)

// Ledger knows what is promised to sandboxes whose records do not say it yet: two that
// start at once are not promised the same room. The zero value is ready.
type Ledger struct {
	mu       sync.Mutex
	starting map[string]int64
}

// Promise says whether there is room for what a sandbox may write. Until kept is called,
// when its record says so or its start has failed, others count with it.
func (l *Ledger) Promise(store *actual.Store, name string, places []actual.OnDisk) (kept func(), err error) {
	if len(places) == 0 {
		return func() {}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// The records first: a sandbox that ends meanwhile counts twice, and none is missed.
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	others := Left(Writers(store, list), name)
	for other, size := range l.starting {
		if other != name {
			others += size
		}
	}
	disk, err := store.Disk()
	if err != nil {
		return nil, err
	}
	asked := sum(places)
	if why := disk.Lacks(asked, others); why != "" {
		return nil, operation.Precondition(errors.New(why))
	}
	if l.starting == nil {
		l.starting = map[string]int64{}
	}
	l.starting[name] = asked
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.starting, name)
	}, nil
}

// Writers are all sandboxes that may write: also by the second copies of records that can't be
// read. One that has no copy either counts by what it has written alone, which is not free
// any more.
func Writers(store *actual.Store, list *actual.Listing) []*actual.Record {
	out := slices.Clone(list.Records)
	for _, q := range list.Quarantined {
		if rec, err := store.Copy(q.Name); err == nil {
			out = append(out, rec)
		}
	}
	return out
}

func sum(places []actual.OnDisk) (n int64) {
	for _, p := range places {
		n += p.Size
	}
	return n
}

// Left is how much the sandboxes of records may still write, but for one of a name.
func Left(records []*actual.Record, but string) (n int64) {
	for _, r := range records {
		if r.Name != but {
			n += left(r)
		}
	}
	return n
}

func left(r *actual.Record) int64 {
	_, left := writes(r)
	return left
}

// writes is how much a sandbox has written and may still write: what can't be seen counts as
// not written.
func writes(r *actual.Record) (written, left int64) {
	used, err := Used(r)
	if errors.Is(err, process.ErrGone) {
		return 0, 0 // and the files with it
	}
	for i, p := range r.OnDisk {
		if err == nil {
			written += used[i]
			p.Size -= min(used[i], p.Size)
		}
		left += p.Size
	}
	return written, left
}

// Look is the room that there is, and what each sandbox has written and may still write of it:
// found is called for those that may write.
func Look(store *actual.Store, found func(name string, written, left int64)) (room.Disk, error) {
	list, err := store.List()
	if err != nil {
		return room.Disk{}, err
	}
	for _, r := range Writers(store, list) {
		if written, left := writes(r); written > 0 || left > 0 {
			found(r.Name, written, left)
		}
	}
	return store.Disk()
}

// Used is how much a sandbox has written to each place: process.ErrGone if it is over.
func Used(r *actual.Record) ([]int64, error) {
	if len(r.OnDisk) == 0 {
		return nil, nil
	}
	if r.Sentry == nil {
		return nil, process.ErrGone
	}
	sentry, err := process.Open(*r.Sentry)
	if err != nil {
		return nil, err
	}
	defer sentry.Close()
	out := make([]int64, len(r.OnDisk))
	for i, p := range r.OnDisk {
		var st unix.Stat_t
		name := procfs.Path(r.Sentry.PID, fmt.Sprintf("fd/%d", p.FD))
		if err := unix.Stat(name, &st); err != nil {
			return nil, fmt.Errorf("look at %s: %w", name, err)
		}
		out[i] = st.Blocks * 512
	}
	if sentry.Alive() != process.Alive {
		return nil, process.ErrGone // the number may be another process's by now
	}
	return out, nil
}
