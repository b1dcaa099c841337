// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"context"
	"net/netip"

	"sandboxctl.dev/launcher/firewall"
	"sandboxctl.dev/launcher/loopback6"
)

// loopback is what is forwarded from [::1]: the ports that rules publish there. A sandbox
// without IPv6 is reached by its other address, since a client of localhost may try this
// family alone.
func loopback(rules *firewall.Ruleset) map[loopback6.Port]netip.AddrPort {
	out := map[loopback6.Port]netip.AddrPort{}
	for i := range rules.Sandboxes {
		s := &rules.Sandboxes[i]
		to := reachedAt(s)
		for _, p := range s.Ports {
			if !to.IsValid() || p.HostIP.IsValid() && p.HostIP != netip.IPv6Loopback() && p.HostIP != netip.IPv6Unspecified() {
				continue
			}
			for n := range uint16(p.Count) {
				out[loopback6.Port{Protocol: p.Protocol, Port: p.HostPort + n}] = netip.AddrPortFrom(to, p.To+n)
			}
		}
	}
	return out
}

// reachedAt is the address where the host reaches a sandbox, as the rules of its ports have
// it: the first of its family.
func reachedAt(s *firewall.Sandbox) (at netip.Addr) {
	for i := range s.Attachments {
		if a := s.Attachments[i].Address6; a.IsValid() {
			return a
		}
	}
	for i := range s.Attachments {
		if a := s.Attachments[i].Address4; a.IsValid() {
			return a
		}
	}
	return at
}

// forwardLoopback has the ports be forwarded that the table publishes. A port that a program
// of the host has is told once, and tried again with each round.
func (k *Keeper) forwardLoopback(ctx context.Context) {
	k.mu.Lock()
	rules := k.installed
	k.mu.Unlock()
	if rules == nil {
		return // what is forwarded stays until it is known
	}
	wanted, taken := loopback(rules), map[loopback6.Port]string{}
	for p, err := range k.loopback.Set(ctx, wanted) {
		taken[p] = err.Error()
		if k.taken[p] != taken[p] {
			k.log.Warn("port not published on [::1]", "err", err)
		}
	}
	k.taken = taken
	forwarded := map[loopback6.Port]bool{}
	for p := range wanted {
		forwarded[p] = taken[p] == ""
	}
	k.mu.Lock()
	k.refused6, k.forwarded = refused6(rules, taken), forwarded
	k.mu.Unlock()
	k.find()
}
