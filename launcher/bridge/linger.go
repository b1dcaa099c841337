// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"context"
	"time"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/launcher/firewall"
)

// force has rules be in force that are on record. nobody says that they are for nobody.
func (k *Keeper) force(rules *firewall.Ruleset, nobody bool) error {
	if nobody { // while there are rules, and the timeouts of the table, which connections use
		if err := k.judge(rules); err != nil {
			return err
		}
	}
	k.mu.Lock()
	switch {
	case !nobody || k.installed == nil:
		k.vacant = time.Time{}
	case k.vacant.IsZero() && len(k.installed.Sandboxes)+len(k.installed.Closed) > 0:
		k.vacant = time.Now()
	}
	remove := nobody && k.lingers() <= 0
	k.mu.Unlock()
	made := rules
	err := crashpoint.Do(crashpoint.RulesInstall, func() error {
		if remove {
			return k.table.Remove()
		}
		return k.table.Install(context.Background(), rules) //nolint:forbidigo // of all who wait for the round
	})
	if err != nil {
		made = nil
	}
	k.mu.Lock()
	if k.installed = made; remove && err == nil {
		k.vacant = time.Time{}
	}
	k.mu.Unlock()
	if err != nil {
		return err
	}
	k.end(rules)
	return nil
}

// linger is how long the table stays when nobody is on a network any more: to make all of it anew
// is most of what a start on a network costs, and a sandbox that is started again may be the only one.
const linger = 10 * time.Second

// lingers is how much of that is left, 0 or less if there is no table that nobody needs. It is
// called with the mutex held.
func (k *Keeper) lingers() time.Duration {
	if k.vacant.IsZero() || k.leaving {
		return 0
	}
	return linger - time.Since(k.vacant)
}

// left is lingers. vacant says that there is such a table.
func (k *Keeper) left() (left time.Duration, vacant bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lingers(), !k.vacant.IsZero()
}

// hasTable says whether there is a table, as far as is known: one that this program has made is
// there also where the kernel can't be asked.
func (k *Keeper) hasTable() bool {
	there, err := k.table.There()
	k.mu.Lock()
	defer k.mu.Unlock()
	made := k.installed != nil && (!k.vacant.IsZero() || len(k.installed.Sandboxes)+len(k.installed.Closed) > 0)
	return there || err != nil && made
}

// leave removes the table that nobody needs: this program ends.
func (k *Keeper) leave() {
	k.mu.Lock()
	k.leaving = true
	k.mu.Unlock()
	if _, vacant := k.left(); !vacant {
		return
	}
	if err := k.rules.Do(); err != nil {
		k.log.Warn("rules of networks that nobody is on not removed", "err", err)
	}
}
