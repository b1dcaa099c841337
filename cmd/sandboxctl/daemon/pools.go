// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/launcher/warm/reserved"
	"sandboxctl.dev/reconcile/pulling"
)

// tellPools says what pools are to have ready, and has what waits be looked at: the policy may have
// changed, or a program.
func (d *daemon) tellPools(want *desired.Snapshot) {
	d.launcher.Warm.Reserve(poolsOf(want))
	d.launcher.Warm.Wake()
}

// poolsOf is what the pools of a snapshot are to have ready, by name.
func poolsOf(want *desired.Snapshot) (out map[string]reserved.Pool) {
	policy := ""
	if want.Policy != nil {
		policy = want.Policy.Digest()
	}
	for i := range want.Objects {
		p := want.Objects[i].Pool
		if p == nil {
			continue
		}
		if out == nil {
			out = map[string]reserved.Pool{}
		}
		_, name, _ := objects.Split(want.Objects[i].Name())
		out[name] = reserved.Pool{Size: *p.Size, Template: pulling.Template(p), Policy: policy, Recreate: p.UpdateStrategy == desired.UpdateRecreate}
	}
	return out
}

// drained makes an event of a claim that got no place that was ready.
func (d *daemon) drained(sandbox, pool, why string) {
	d.log.Info("claim is started cold", "sandbox", sandbox, "pool", pool, "why", why)
	err := d.journal.Append(actual.Event{Type: actual.EventWarning, Sandbox: sandbox, Reason: actual.EventPoolDrained, Message: fmt.Sprintf("%s: %s; it is started cold", objects.Name(objects.Pool, pool), why)})
	if err != nil {
		d.log.Warn("event not recorded", "err", err)
	}
}
