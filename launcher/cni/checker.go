// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired/hostpolicy"
)

// Failure is what a CHECK of one run of a sandbox has said.
type Failure struct {
	UID     string
	Attempt int64
	Message string
}

// Checker checks the networks of sandboxes that run when a daemon begins: nobody knows what
// happened to them while there was none. What fails is checked again until it passes or the
// run is over.
type Checker struct {
	store   *actual.Store
	policy  func() (*hostpolicy.Policy, error)
	log     *slog.Logger
	changes chan struct{}

	mu     sync.Mutex
	failed map[string]Failure // never changed, only replaced
}

// NewChecker returns a checker of the sandboxes of a store.
func NewChecker(store *actual.Store, policy func() (*hostpolicy.Policy, error), log *slog.Logger) *Checker {
	return &Checker{store: store, policy: policy, log: log, changes: make(chan struct{}, 1)}
}

// Failed is what is wrong, by the name of the sandbox. Nobody changes the map.
func (k *Checker) Failed() map[string]Failure {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failed
}

// Changes says that Failed has another value.
func (k *Checker) Changes() <-chan struct{} { return k.changes }

// checkAgain is how long after a CHECK that failed the next one is.
const checkAgain = time.Minute

// Run checks what runs now, and then what has failed.
func (k *Checker) Run(ctx context.Context) error {
	which := func(*actual.Record) bool { return true }
	for {
		if err := k.round(ctx, which); err != nil || ctx.Err() != nil {
			return err
		}
		failed := k.Failed()
		if len(failed) == 0 {
			return nil
		}
		which = func(r *actual.Record) bool { return failed[r.Name].UID == r.UID && failed[r.Name].Attempt == r.Attempt }
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(checkAgain):
		}
	}
}

// round checks some sandboxes, one after the other.
func (k *Checker) round(ctx context.Context, which func(*actual.Record) bool) error {
	list, err := k.store.List()
	if err != nil {
		return err
	}
	failed := map[string]Failure{}
	for _, rec := range list.Records {
		if rec.CNI == nil || rec.Phase != actual.PhaseRunning || !which(rec) {
			continue
		}
		all := Of(rec)
		for _, c := range all {
			if c.CheckFails != "" {
				k.log.Info("network of a sandbox is not checked: its plugins found fault with it when they had just made it", "sandbox", rec.Name, "network", c.Network, "err", c.CheckFails)
			}
		}
		policy, err := k.policy()
		if err != nil {
			return err
		}
		err = Check(ctx, all, &policy.Network.CNI)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the daemon ends
		}
		if err != nil {
			k.log.Warn("network of a sandbox is not as it was made", "sandbox", rec.Name, "err", err)
			failed[rec.Name] = Failure{rec.UID, rec.Attempt, untrusted.Line(err.Error(), 1000)}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if maps.Equal(k.failed, failed) {
		return nil
	}
	k.failed = failed
	select {
	case k.changes <- struct{}{}:
	default:
	}
	return nil
}
