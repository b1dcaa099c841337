// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/firewall"
	"sandboxctl.dev/launcher/firewall/others"
	"sandboxctl.dev/launcher/hostports"
	"sandboxctl.dev/launcher/links"
	"sandboxctl.dev/launcher/loopback6"
)

// Lack is what one run of a sandbox lacks of its networks.
type Lack struct {
	UID     string
	Attempt int64
	// Gone are the networks that it has no link to any more.
	Gone []string
	// Refused says of ports why they are not published.
	Refused []string
	// Unlimited says why its bandwidth is not what it should be, "" if it is.
	Unlimited string
	// Dropping are chains of other programs that drop what its links carry.
	Dropping []string
}

// Lacks are what sandboxes lack, by name.
func (k *Keeper) Lacks() map[string]Lack {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lacks
}

// Changes says that Lacks has others.
func (k *Keeper) Changes() <-chan struct{} { return k.lacking }

// find sets the lacks, of what rounds and looks have found. What is on a map is not changed
// any more.
func (k *Keeper) find() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := map[string]Lack{}
	for name, run := range k.runs {
		l := Lack{
			UID: run.uid, Attempt: run.attempt, Gone: k.gone[run], Refused: slices.Concat(k.refused[name], k.refused6[name]),
			Unlimited: k.bandwidth[run].err, Dropping: k.dropping,
		}
		if len(l.Gone)+len(l.Refused)+len(l.Unlimited)+len(l.Dropping) > 0 {
			now[name] = l
		}
	}
	if reflect.DeepEqual(k.lacks, now) || len(k.lacks)+len(now) == 0 {
		return
	}
	k.lacks = now
	select {
	case k.lacking <- struct{}{}:
	default:
	}
}

// restore sets up again what somebody has removed of links of running sandboxes.
func (k *Keeper) restore() {
	records, err := k.records()
	if err != nil {
		k.log.Warn("links not looked at", "err", err)
		return
	}
	gone := map[run][]string{}
	for _, r := range records {
		if r.Phase != actual.PhaseRunning {
			continue // an operation is at work
		}
		// sysctl --system, for one, may have switched forwarding off.
		if err := k.forwarding(r); err != nil {
			k.log.Warn("settings of the host for networks not repaired", "err", err)
		}
		for i, l := range Links(r) {
			missing, err := links.Missing(l)
			if err == nil && len(missing) > 0 {
				if err = links.Restore(l); err == nil {
					k.log.Warn("network of a sandbox repaired", "sandbox", r.Name, "missing", strings.Join(missing, ", "))
				}
			}
			if errors.Is(err, links.ErrGone) {
				network := r.Attachments[i].Network
				gone[runOf(r)] = append(gone[runOf(r)], network)
				if k.told(r, network) {
					continue
				}
			}
			if err != nil {
				k.log.Warn("network of a sandbox not repaired", "sandbox", r.Name, "err", err)
			}
		}
	}
	k.mu.Lock()
	before := k.dropping
	k.mu.Unlock()
	dropping, err := others.Dropping(k.table.Name(), before)
	if err != nil {
		k.log.Warn("rules of other programs not looked at", "err", err)
	}
	k.mu.Lock()
	k.gone, k.dropping = gone, dropping
	k.mu.Unlock()
	k.find()
}

func (k *Keeper) told(r *actual.Record, network string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.gone[runOf(r)], network)
}

// run is one run of a sandbox.
type run struct {
	uid     string
	attempt int64
}

func runOf(r *actual.Record) run { return run{r.UID, r.Attempt} }

// spot is a port of the host.
type spot struct {
	protocol string
	at       netip.Addr // not valid for all
	port     uint16
}

// spots are those of all ports of rules.
func spots(all []firewall.Sandbox) map[spot]bool {
	out := map[spot]bool{}
	for i := range all {
		for _, p := range all[i].Ports {
			for n := range uint16(p.Count) {
				out[spot{p.Protocol, p.HostIP, p.HostPort + n}] = true
			}
		}
	}
	return out
}

// held finds out which ports programs of the host have. Rules would take these away from
// them: who looks for the host's own service would get the sandbox. What is published stays,
// as long as the sandbox runs: a program that comes later has come second.
func (k *Keeper) held() func(p *networks.Port) string {
	var published map[spot]bool
	if k.judged != nil {
		published = spots(k.judged.Sandboxes)
	}
	k.mu.Lock()
	ours := k.forwarded
	k.mu.Unlock()
	return func(p *networks.Port) string {
		_, count := p.First()
		for n := range uint16(count) {
			s := spot{strings.ToLower(p.Protocol), p.Addr(), p.HostPort + n}
			if !published[s] && hostports.Held(s.protocol, s.at, s.port, ours[loopback6.Port{Protocol: s.protocol, Port: s.port}]) {
				return fmt.Sprintf("port %s is not published: a program of the host has port %d; it is published within %s of its end", p.Describe(), s.port, k.lookEvery)
			}
		}
		return ""
	}
}

// refused6 are the ports that could not be had at [::1], by sandbox.
func refused6(rules *firewall.Ruleset, taken map[loopback6.Port]string) map[string][]string {
	out := map[string][]string{}
	for i := range rules.Sandboxes {
		s := &rules.Sandboxes[i]
		for p := range loopback(&firewall.Ruleset{Sandboxes: []firewall.Sandbox{*s}}) {
			if why := taken[p]; why != "" {
				out[s.Name] = append(out[s.Name], why)
			}
		}
		slices.Sort(out[s.Name])
	}
	maps.DeleteFunc(out, func(_ string, why []string) bool { return len(why) == 0 })
	return out
}
