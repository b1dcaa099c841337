// SPDX-License-Identifier: Apache-2.0

package addresses

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func adr(s string) netip.Addr   { return netip.MustParseAddr(s) }

func taken(ps ...string) *Taken {
	t := &Taken{}
	for _, p := range ps {
		t.Prefixes = append(t.Prefixes, pfx(p))
	}
	return t
}

func TestLast(t *testing.T) {
	t.Parallel()
	for p, want := range map[string]string{
		"10.0.0.0/24": "10.0.0.255", "10.0.0.7/32": "10.0.0.7", "10.0.0.0/9": "10.127.255.255", "0.0.0.0/0": "255.255.255.255",
		"fd00::/64": "fd00::ffff:ffff:ffff:ffff", "fd00::1/128": "fd00::1",
	} {
		if got := last(pfx(p)); got != adr(want) {
			t.Errorf("last of %s is %s, expected %s", p, got, want)
		}
	}
}

// Sandboxes are given addresses until none is left: each another one, none of those that
// somebody has, and all that there are.
func TestPickAll(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		v6 := i%2 == 1
		bits, base := 32, "10.9.0.0"
		if v6 {
			bits, base = 128, "fd09::"
		}
		subnet := netip.PrefixFrom(adr(base), bits-2-rng.IntN(6)).Masked()
		have := &Taken{Prefixes: []netip.Prefix{pfx("0.0.0.0/0"), pfx("10.0.0.0/8"), pfx("fd00::/8"), subnet}}
		blocked := map[netip.Addr]bool{subnet.Addr(): true, Gateway(subnet): true}
		if !v6 {
			blocked[last(subnet)] = true
		}
		var all []netip.Addr
		for a := subnet.Addr(); a.IsValid() && subnet.Contains(a); a = a.Next() {
			all = append(all, a)
		}
		for range rng.IntN(4) {
			p := netip.PrefixFrom(all[rng.IntN(len(all))], subnet.Bits()+1+rng.IntN(bits-subnet.Bits())).Masked()
			have.Prefixes = append(have.Prefixes, p)
			for _, a := range all {
				blocked[a] = blocked[a] || p.Contains(a)
			}
		}
		total := 0
		for _, a := range all {
			if !blocked[a] {
				total++
			}
		}
		for n := range total {
			a, err := Pick(subnet, fmt.Sprint("sandbox ", n), have)
			if err != nil {
				t.Fatalf("%s with %v, %d of %d: %v", subnet, have.Prefixes, n, total, err)
			}
			if blocked[a] || !subnet.Contains(a) {
				t.Fatalf("%s with %v: %s is not free", subnet, have.Prefixes, a)
			}
			if err := Check(subnet, a, have); err != nil {
				t.Fatalf("%s was chosen and can't be asked for: %v", a, err)
			}
			blocked[a] = true
			have.Add(a)
			if err := Check(subnet, a, have); !errors.Is(err, ErrTaken) {
				t.Fatalf("%s is taken twice: %v", a, err)
			}
		}
		if a, err := Pick(subnet, "one more", have); err == nil {
			t.Fatalf("%s with %v is full and has %s", subnet, have.Prefixes, a)
		}
	}
}

// Who is deleted and made again has its address again; another one is not given it as
// its first choice as a rule.
func TestPickAgain(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"10.210.0.0/24", "fd10::/64"} {
		a, err := Pick(pfx(s), "default/web", taken())
		if err != nil {
			t.Fatal(err)
		}
		have := &Taken{}
		have.Add(a)
		b, err := Pick(pfx(s), "default/web", have)
		if err != nil || a == b {
			t.Errorf("%s twice, %v", b, err)
		}
		if c, err := Pick(pfx(s), "default/web", taken()); err != nil || c != a {
			t.Errorf("%s then %s, %v", a, c, err)
		}
		if d, err := Pick(pfx(s), "default/db", taken()); err != nil || d == a {
			t.Errorf("web and db both begin with %s, %v", d, err)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		subnet, addr string
		ok           bool
	}{
		{"10.1.0.0/24", "10.1.0.9", true},
		{"10.1.0.0/24", "10.1.0.1", false}, // the gateway
		{"10.1.0.0/24", "10.1.0.0", false},
		{"10.1.0.0/24", "10.1.0.255", false},
		{"10.1.0.0/24", "10.1.1.9", false},
		{"10.1.0.0/24", "10.1.0.77", false}, // taken
		{"10.1.0.0/24", "10.1.0.130", false},
		{"10.1.0.0/31", "10.1.0.1", false},
		{"fd01::/64", "fd01::2", true},
		{"fd01::/64", "fd01::1", false},
		{"fd01::/64", "10.1.0.9", false},
	} {
		err := Check(pfx(c.subnet), adr(c.addr), taken("10.1.0.77/32", "10.1.0.128/25", "0.0.0.0/0", "10.0.0.0/8"))
		if (err == nil) != c.ok {
			t.Errorf("%s of %s: %v", c.addr, c.subnet, err)
		}
	}
}

func TestSubnet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pool string
		bits int
		have *Taken
		want string // "" for none
	}{
		{"10.210.0.0/16", 24, taken(), "10.210.0.0/24"},
		{"10.210.0.0/16", 24, taken("0.0.0.0/0", "10.210.0.0/24", "10.210.1.7/32"), "10.210.2.0/24"},
		{"10.210.0.0/16", 24, taken("10.210.0.0/17"), "10.210.128.0/24"},
		{"10.210.0.0/16", 24, taken("10.0.0.0/8"), ""},
		{"10.210.0.0/16", 16, taken(), "10.210.0.0/16"},
		{"10.210.0.0/16", 8, taken(), ""},
		{"10.210.0.0/24", 26, taken("10.210.0.0/26", "10.210.0.64/26", "10.210.0.191/32", "10.210.0.192/27"), ""},
		{"255.255.255.0/24", 26, taken("255.255.255.0/24"), ""},
		{"fd5a::/48", 64, taken("::/0", "fd5a::/64", "10.0.0.0/8"), "fd5a:0:0:1::/64"},
	} {
		got, err := Subnet(pfx(c.pool), c.bits, c.have)
		if c.want == "" && err != nil {
			continue
		}
		if c.want == "" || err != nil || got != pfx(c.want) {
			t.Errorf("/%d of %s with %v: %s %v, expected %q", c.bits, c.pool, c.have.Prefixes, got, err, c.want)
		}
	}
}

// Whatever is taken, what is chosen is in the pool and overlaps nothing of it; and if
// nothing is chosen, nothing is free.
func TestSubnetProperty(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	pool := pfx("10.210.0.0/24")
	for range 2000 {
		have := &Taken{}
		for range rng.IntN(8) {
			have.Prefixes = append(have.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 210, 0, byte(rng.IntN(256))}), 24+rng.IntN(9)).Masked())
		}
		bits := 25 + rng.IntN(5)
		free := false
		for a := 0; a < 256; a += 1 << (32 - bits) {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 210, 0, byte(a)}), bits)
			free = free || !Overlap(p, have).IsValid()
		}
		got, err := Subnet(pool, bits, have)
		if free != (err == nil) || err == nil && (Overlap(got, have).IsValid() || !pool.Overlaps(got) || got.Bits() != bits) {
			t.Fatalf("/%d with %v: %s %v, free: %v", bits, have.Prefixes, got, err, free)
		}
	}
}
