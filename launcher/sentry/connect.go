// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"context"
	"errors"
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
)

// Connect returns a control connection to the sandbox of a name, for a verb of
// the CLI. It takes no lock and needs no daemon. It fails with ErrNoSandbox if there is
// no record, with ErrNotRunning if the record's sentry is not alive, and never talks to another process than
// that one.
func Connect(ctx context.Context, store *actual.Store, name string) (*Control, *actual.Record, error) {
	rec, quarantined, err := store.Get(name)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("load record of %s: %w", name, err)
	case quarantined != nil:
		return nil, nil, fmt.Errorf("load record of %s: %s: %s; see `sandboxctl describe %s`", name, quarantined.Reason, quarantined.Message, name)
	case rec == nil:
		return nil, nil, fmt.Errorf("connect to %s: %w", name, ErrNoSandbox)
	}
	c, err := ConnectTo(ctx, store, rec)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	return c, rec, nil
}

// ConnectTo is Connect for a record that was read already.
func ConnectTo(ctx context.Context, store *actual.Store, rec *actual.Record) (*Control, error) {
	live, err := process.LivenessOf(rec.Sentry)
	if live != process.Alive {
		if err != nil {
			return nil, fmt.Errorf("%w: %w", process.ErrUnknownProcess, err)
		}
		return nil, ErrNotRunning
	}
	dir, err := store.Dir(rec.Name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	c, err := Dial(ctx, int(dir.Fd()), rec.Name, rec.Sentry.PID)
	if err != nil {
		return nil, err
	}
	c.init, c.cgroups = rec.App().Init == actual.InitOwn, rec.Cgroups
	return c, nil
}

// Dial connects to the control server that listens in the directory of descriptor
// dir, if it is the process of that pid, and to nobody else.
func Dial(ctx context.Context, dir int, name string, pid int) (*Control, error) {
	c, err := dialControl(ctx, dir, name)
	if err != nil {
		return nil, err
	}
	peer, err := c.PeerPID()
	if err == nil && peer != pid {
		err = fmt.Errorf("control socket is served by pid %d, expected the sentry, pid %d", peer, pid)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
