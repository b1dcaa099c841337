// SPDX-License-Identifier: Apache-2.0

// Package stricter compares the rules of before with those of now: which connections may have
// been let through that would not be by now. Functions of values, which touch nothing.
package stricter

import (
	"net/netip"
	"slices"

	"sandboxctl.dev/launcher/firewall"
)

// Addresses are those of attachments.
func Addresses(all []firewall.Attachment) (out []netip.Addr) {
	for i := range all {
		for _, a := range []netip.Addr{all[i].Address4, all[i].Address6} {
			if a.IsValid() {
				out = append(out, a)
			}
		}
	}
	return out
}

// Forbidden are the addresses whose connections may not go on.
func Forbidden(before, now []firewall.Sandbox) []netip.Addr {
	var out []netip.Addr
	add := func(s *firewall.Sandbox) {
		for _, a := range Addresses(s.Attachments) {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	byName := make(map[string]*firewall.Sandbox, len(now))
	for i := range now {
		byName[now[i].Name] = &now[i]
	}
	for i := range before {
		was, is := &before[i], byName[before[i].Name]
		switch {
		case is == nil:
			add(was)
		case !allowsAll(was, is):
			add(was)
			add(is)
		}
	}
	return out
}

// allowsAll says for certain that a sandbox may do all that it could before.
func allowsAll(was, is *firewall.Sandbox) bool {
	return slices.EqualFunc(was.Attachments, is.Attachments, opensAll) &&
		(is.Connections == 0 || is.Connections >= was.Connections) && // a smaller set has no room for all that count
		includes(is.Ports, was.Ports) && reaches(&was.Egress, &is.Egress) && reaches(&was.Ingress, &is.Ingress)
}

// opensAll says that a sandbox has the same addresses, and a network that is as open or more.
func opensAll(was, is firewall.Attachment) bool {
	if is.Internal && !was.Internal || is.Isolated && !was.Isolated {
		return false
	}
	was.Internal, was.Isolated = is.Internal, is.Isolated
	return was == is
}

func reaches(was, is *firewall.Reach) bool {
	all := func(r *firewall.Reach) bool { return r.Default == "" || r.Default == firewall.Allow }
	if all(is) {
		return true
	}
	return (was.Default == is.Default || was.Default == firewall.Deny) && includes(is.Allow, was.Allow)
}

func includes[T comparable](all, some []T) bool {
	return !slices.ContainsFunc(some, func(s T) bool { return !slices.Contains(all, s) })
}
