// SPDX-License-Identifier: Apache-2.0

package links

import (
	"net/netip"
	"slices"
	"time"
)

// endingPatience is how long the link of a sandbox that has ended is waited for. The kernel
// removes it in the background, after the last process of its network namespace.
const endingPatience = time.Second

// AwaitEnding waits until no link of another sandbox has one of the addresses, at most for a
// second: who is given the address of a sandbox that has just ended would be told that it is
// taken. Without addresses it asks the kernel nothing. A link that stays is no error here.
func AwaitEnding(uid string, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	own := Of(uid)
	for deadline := time.Now().Add(endingPatience); ; <-time.After(10 * time.Millisecond) {
		host, err := Look()
		if err != nil {
			return err
		}
		held := slices.ContainsFunc(host.Links, func(l Link) bool {
			return !own[l.Name] && slices.ContainsFunc(l.Addresses, func(a netip.Addr) bool { return slices.Contains(addrs, a) })
		})
		if !held || time.Now().After(deadline) {
			return nil
		}
	}
}

// Of are the names of all links that a sandbox can have.
func Of(uid string) map[string]bool {
	out := map[string]bool{}
	for i := range MaxLinks {
		out[Name(uid, i)] = true
	}
	return out
}
