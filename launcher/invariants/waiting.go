// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/procfs"
	"sandboxctl.dev/launcher/warm"
)

// waitingLooks is how often it is looked, confirmAfter apart, before a process that waits for
// a sandbox is a violation: it is started before it is on record, and takes a while to leave
// when its daemon is gone.
const waitingLooks = 5

// waiting checks that each process that waits for a sandbox is on record, and that there is a
// daemon which could give it one.
func (v *view) waiting(ctx context.Context, store *actual.Store) error {
	found, err := lookWaiting(store)
	for range waitingLooks - 1 {
		if err != nil || len(found) == 0 {
			return err
		}
		wait := time.NewTimer(confirmAfter)
		select {
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("look again: %w", context.Cause(ctx))
		case <-wait.C:
		}
		var again map[int]string
		again, err = lookWaiting(store)
		maps.DeleteFunc(found, func(pid int, why string) bool { return again[pid] != why })
	}
	for _, pid := range slices.Sorted(maps.Keys(found)) {
		v.add(OrphanProcess, "pid %d waits for a sandbox and %s", pid, found[pid])
	}
	return err
}

// lookWaiting is what is wrong with the processes that wait now.
func lookWaiting(store *actual.Store) (map[int]string, error) {
	pids, err := procfs.PIDs()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var waits []int
	for _, pid := range pids {
		cmdline, err := procfs.Read(pid, "cmdline")
		// One that is about to become another program looks like its parent.
		if err == nil && warm.IsWaiting(cmdline, store.Marker()) && !slices.Contains(waits, parentOf(pid)) {
			waits = append(waits, pid)
		}
	}
	if len(waits) == 0 {
		return nil, nil
	}
	root, err := store.Root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// After the processes: one that was there is recorded now.
	ids, err := warm.Read(dir)
	if err != nil {
		return nil, err
	}
	_, daemon, err := store.DaemonInfo()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	found := map[int]string{}
	for _, pid := range waits {
		switch {
		case !slices.ContainsFunc(ids, func(id process.Identity) bool { return id.PID == pid && isAlive(id) }):
			found[pid] = "is on no record"
		case daemon == process.Dead || daemon == process.None:
			found[pid] = "there is no daemon"
		}
	}
	return found, nil
}
