// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"errors"
	"fmt"
	"maps"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/links"
	"sandboxctl.dev/launcher/netns"
)

// shaped is what is known of the bandwidth of a run of a sandbox: what was set up, or why it
// could not be.
type shaped struct {
	limits networks.Bandwidth
	err    string
}

// limits are the bandwidth that is in force for a sandbox.
func (k *Keeper) limits(name string) networks.Bandwidth {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.said[name].Limits()
}

// setLimits has all links of a sandbox pass what the limits say.
func setLimits(host links.Queues, rec *actual.Record, ns *netns.Namespace, limits networks.Bandwidth) error {
	for _, l := range Links(rec) {
		err := links.Shape(host, ns, l, links.Rates{Egress: int64(limits.Egress), Ingress: int64(limits.Ingress)})
		if errors.Is(err, links.ErrNoShaper) {
			return operation.Precondition(fmt.Errorf("spec.network.bandwidth: %w", err))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// shapeNew bounds the links of a sandbox before it sends anything by them. One that is to have
// less than all is not started with all.
func (k *Keeper) shapeNew(rec *actual.Record, ns *netns.Namespace) error {
	limits := k.limits(rec.Name)
	if limits != (networks.Bandwidth{}) {
		host, err := links.LookAtQueues()
		if err == nil {
			err = setLimits(host, rec, ns, limits)
		}
		if err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bandwidth[runOf(rec)] = shaped{limits: limits}
	return nil
}

// reshape has the links of running sandboxes pass what their manifests say now. look says that
// somebody may have changed them: then those with limits are looked at.
func (k *Keeper) reshape(look bool) {
	records, err := k.records()
	if err != nil {
		return // told by those who need them
	}
	k.mu.Lock()
	had := maps.Clone(k.bandwidth)
	k.mu.Unlock()
	now, running := map[run]shaped{}, map[run]bool{}
	var host links.Queues
	for _, rec := range records {
		at, limits := runOf(rec), k.limits(rec.Name)
		before, known := had[at]
		running[at] = true
		if rec.Phase != actual.PhaseRunning {
			continue // an operation is at work
		}
		if known && before.err == "" && before.limits == limits && (limits == networks.Bandwidth{} || !look) {
			continue
		}
		if host == nil {
			host, err = links.LookAtQueues()
		}
		if err == nil {
			err = shapeRunning(host, rec, limits)
		}
		s := shaped{limits: limits}
		if err != nil {
			s.err, err = err.Error(), nil
		}
		switch {
		case s.err != "" && s.err != before.err:
			k.log.Warn("bandwidth of a sandbox is not as its manifest says, will retry", "sandbox", rec.Name, "err", s.err)
		case s.err == "" && known && before.limits != limits:
			k.log.Info("bandwidth of a sandbox changed", "sandbox", rec.Name, "egress", limits.Egress, "ingress", limits.Ingress)
		}
		now[at] = s
	}
	k.mu.Lock()
	maps.Copy(k.bandwidth, now)
	maps.DeleteFunc(k.bandwidth, func(at run, _ shaped) bool {
		_, before := had[at] // or it was started meanwhile
		return before && !running[at]
	})
	k.mu.Unlock()
	k.find()
}

func shapeRunning(host links.Queues, rec *actual.Record, limits networks.Bandwidth) error {
	ns, err := process.Through(*rec.Sentry, netns.Of)
	if errors.Is(err, process.ErrGone) {
		return nil // it has ended, which others tell
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	err = setLimits(host, rec, ns, limits)
	if errors.Is(err, links.ErrGone) {
		return nil // that too
	}
	return err
}
