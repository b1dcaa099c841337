// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"errors"
	"fmt"

	"sandboxctl.dev/actual"
)

// Remove implements reconcile.Launcher.
func (l *launcher) Remove(ctx context.Context, name string, end actual.Ending) (stopped *actual.Record, err error) {
	o := l.begin("remove", name)
	defer o.end()
	if !l.p.dead {
		l.h.stats.Removes++
	}
	var left error
	err = o.destroy(ctx, name, end, func(rec *actual.Record) error {
		stopped = rec
		if left = o.store.Remove(name); left != nil {
			return o.recordStop(rec)
		}
		return nil
	})
	if err = errors.Join(left, err); err != nil && !l.p.dead {
		l.h.note("%s failed: %v", o.t.name, err)
	}
	return stopped, err
}

// Forget implements reconcile.Launcher.
func (l *launcher) Forget(_ context.Context, name string) error {
	o := l.begin("forget", name)
	defer o.end()
	if !l.p.dead {
		l.h.stats.Forgets++
	}
	if _, err := o.loadStopped(name); err != nil {
		return err
	}
	return l.store.Remove(name)
}

// Retire implements reconcile.Launcher. Nobody here has logs.
func (l *launcher) Retire(_ context.Context, name string) error {
	o := l.begin("retire", name)
	defer o.end()
	rec, err := o.loadStopped(name)
	if err != nil || rec == nil {
		return err
	}
	if !l.p.dead {
		l.h.stats.Retires++
	}
	rec = rec.Clone()
	rec.Retire()
	return o.store.Put(rec)
}

func (o *op) loadStopped(name string) (*actual.Record, error) {
	rec, err := o.load(name)
	if err != nil || rec == nil {
		return nil, err
	}
	if rec.Phase != actual.PhaseStopped {
		return nil, fmt.Errorf("it is %s", rec.Phase)
	}
	return rec, o.proveDead(rec)
}
