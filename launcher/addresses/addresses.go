// SPDX-License-Identifier: Apache-2.0

package addresses

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
)

// ErrTaken says that an address or a subnet that was asked for is another's.
var ErrTaken = errors.New("it is taken")

// ErrExhausted says that nothing is free.
var ErrExhausted = errors.New("none is free")

// Taken is what others have.
type Taken struct {
	// Prefixes are addresses of records and links, as prefixes of full length, and routes
	// of the host.
	Prefixes []netip.Prefix
}

// Add notes an address; an invalid one is none.
func (t *Taken) Add(a netip.Addr) {
	if a.IsValid() {
		t.Prefixes = append(t.Prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
}

// Gateway is the first address of a subnet, which the host has on every link to it.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		if left := p.Bits() - 8*i; left < 8 {
			b[i] |= byte(0xff >> max(left, 0))
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// usable are the first and the last address of a subnet that a sandbox can have; ok is
// false if there is none.
func usable(subnet netip.Prefix) (from, to netip.Addr, ok bool) {
	from, to = Gateway(subnet).Next(), last(subnet)
	if subnet.Addr().Is4() {
		to = to.Prev() // broadcast
	}
	return from, to, from.IsValid() && to.IsValid() && from.Compare(to) <= 0 && subnet.Contains(from)
}

// within are the prefixes that take a part of the subnet and not all of it: a route that
// leads to the subnet and to more is that of the network itself, or a default route.
func (t *Taken) within(subnet netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range t.Prefixes {
		if p.Bits() > subnet.Bits() && subnet.Overlaps(p) {
			out = append(out, p.Masked())
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return out
}

// Pick chooses an address of the subnet that nobody has. The same key is given the same
// one as long as that is free: who deletes a sandbox and makes it again finds it where it
// was.
func Pick(subnet netip.Prefix, key string, taken *Taken) (netip.Addr, error) {
	subnet = subnet.Masked()
	from, to, ok := usable(subnet)
	if !ok {
		return netip.Addr{}, fmt.Errorf("choose an address of %s: it has no room for a sandbox", subnet)
	}
	used := taken.within(subnet)
	start := offset(from, to, key)
	for _, r := range []struct{ from, to netip.Addr }{{start, to}, {from, start}} {
		if a, ok := free(r.from, r.to, used); ok {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("choose an address of %s: %w; remove sandboxes of the network, or give it a larger subnet", subnet, ErrExhausted)
}

// offset is where the search for the address of a key begins.
func offset(from, to netip.Addr, key string) netip.Addr {
	first, size := number(from), number(to)
	size.Sub(size, first).Add(size, big.NewInt(1))
	sum := sha256.Sum256([]byte(key))
	at := new(big.Int).SetUint64(binary.BigEndian.Uint64(sum[:8]) >> 16)
	return address(at.Mod(at, size).Add(at, first), from.BitLen())
}

func number(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }

func address(n *big.Int, bits int) netip.Addr {
	a, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, bits/8)))
	return a
}

// free is the first address from one to another that none of the sorted prefixes has.
func free(from, to netip.Addr, used []netip.Prefix) (netip.Addr, bool) {
	a := from
	for _, p := range used {
		if p.Addr().Compare(a) > 0 {
			// Later ones begin behind this one; of those before, one may contain it.
			break
		}
		if p.Contains(a) {
			a = last(p).Next()
		}
	}
	for _, p := range used {
		if !a.IsValid() || a.Compare(to) > 0 {
			return a, false
		}
		if p.Contains(a) {
			a = last(p).Next()
		}
	}
	return a, a.IsValid() && a.Compare(to) <= 0
}

// Check returns an error unless a sandbox can have the address that its manifest asks for.
func Check(subnet netip.Prefix, a netip.Addr, taken *Taken) error {
	subnet = subnet.Masked()
	from, to, ok := usable(subnet)
	switch {
	case !subnet.Contains(a):
		return fmt.Errorf("address %s is not in the subnet of its network, %s", a, subnet)
	case !ok || a.Compare(from) < 0 || a.Compare(to) > 0:
		return fmt.Errorf("address %s can't be a sandbox's: expected one from %s to %s", a, from, to)
	}
	for _, p := range taken.within(subnet) {
		if p.Contains(a) {
			return fmt.Errorf("address %s: %w, by %s", a, ErrTaken, p)
		}
	}
	return nil
}

// Subnet chooses a subnet of the pool, with a prefix of so many bits, that overlaps
// nothing of what is taken: a route of the host would lead elsewhere, or a sandbox would
// take the place of a machine of the host's network.
func Subnet(pool netip.Prefix, bits int, taken *Taken) (netip.Prefix, error) {
	pool = pool.Masked()
	if bits < pool.Bits() || bits > pool.Addr().BitLen()-2 {
		return netip.Prefix{}, fmt.Errorf("choose a subnet of %s: a prefix of %d bits is not in it", pool, bits)
	}
	for a := pool.Addr(); a.IsValid() && pool.Contains(a); {
		p := netip.PrefixFrom(a, bits)
		hit := Overlap(p, taken)
		if !hit.IsValid() {
			return p, nil
		}
		if hit.Bits() > bits {
			hit = p
		}
		a = last(hit).Next()
	}
	return netip.Prefix{}, fmt.Errorf("choose a subnet of %s: %w; give the network one (spec.subnet, spec.subnet6), or the host policy another pool", pool, ErrExhausted)
}

// Overlap is what of that which is taken overlaps the subnet, the largest there is; it is
// invalid if there is nothing. Default routes lead where nothing else does.
func Overlap(subnet netip.Prefix, taken *Taken) netip.Prefix {
	var hit netip.Prefix
	for _, p := range taken.Prefixes {
		if p.Bits() > 0 && p.Overlaps(subnet) && (!hit.IsValid() || p.Bits() < hit.Bits()) {
			hit = p.Masked()
		}
	}
	return hit
}
