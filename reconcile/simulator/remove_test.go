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
	rec, err := o.load(name)
	if err != nil {
		return err
	}
	if rec != nil {
		if rec.Phase != actual.PhaseStopped {
			return fmt.Errorf("it is %s", rec.Phase)
		}
		if err := o.proveDead(rec); err != nil {
			return err
		}
	}
	return l.store.Remove(name)
}
