// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/addresses"
)

// Directory is where the state directory says what was chosen for networks.
const Directory = "networks"

// version of the files in it.
const version = 1

// maxFile bounds one of them.
const maxFile = 4096

// subnets are those of a network, zero without the family, and who is reached through it.
type subnets struct {
	Version int          `json:"version"`
	Name    string       `json:"name"`
	Subnet4 netip.Prefix `json:"subnet4,omitzero"`
	Subnet6 netip.Prefix `json:"subnet6,omitzero"`
	Scope   scope        `json:"scope,omitzero"`
}

// subnets returns the subnets of a network: those that its document says, or else the ones
// that were chosen before, or others; and what else is said of it. spec is nil for the network
// default without a document.
func (c *choice) subnets(name string, spec *networks.Declared, pools Pools) (*subnets, *networks.Declared, error) {
	had, err := c.k.readSubnets(name)
	if err != nil {
		return nil, nil, err
	}
	others, err := c.others(name)
	if err != nil {
		return nil, nil, err
	}
	now := subnets{Version: version, Name: name, Scope: c.k.declared(name)}
	filled := networks.Declared{}
	switch {
	case spec != nil:
		filled = *spec
		if !now.Scope.Known {
			now.Scope = scopeOf(spec)
		}
	case !now.Scope.Known: // its document may be one that can't be read now
		now.Scope = had.Scope
	}
	now.Scope.Known = true
	filled.Fill()
	if now.Subnet4, err = c.subnet(filled.Prefix4(), had.Subnet4, c.usedBy(name, true), pools.V4, others); err != nil {
		return nil, nil, err
	}
	if *filled.IPv6 && hasIPv6() {
		if now.Subnet6, err = c.subnet(filled.Prefix6(), had.Subnet6, c.usedBy(name, false), pools.V6, others); err != nil {
			return nil, nil, err
		}
	}
	if now != *had {
		if err := c.k.writeSubnets(&now); err != nil {
			return nil, nil, err
		}
	}
	c.k.scopes[name] = now.Scope
	return &now, &filled, nil
}

// usedBy are the subnets of one family that other sandboxes of a network have.
func (c *choice) usedBy(name string, four bool) (out []netip.Prefix) {
	for _, p := range c.used[name] {
		if p.Addr().Is4() == four {
			out = append(out, p)
		}
	}
	return out
}

// subnet decides on the subnet of one family.
func (c *choice) subnet(given, had netip.Prefix, used, pools []netip.Prefix, others *addresses.Taken) (netip.Prefix, error) {
	if given.IsValid() {
		for _, taken := range []*addresses.Taken{others, c.host} {
			// A route that the host got later than the network does not end it: it leads to
			// all of the subnet but what the links of sandboxes have.
			if hit := addresses.Overlap(given, taken); hit.IsValid() && (given != had || taken == others) {
				return given, operation.Precondition(fmt.Errorf("its subnet %s overlaps %s, which another network or the host has", given, hit))
			}
		}
		return given, nil
	}
	// What others have is the subnet of the network, also where no pool has it any more, or
	// the file is gone: with two subnets they would not all reach each other.
	if !had.IsValid() && len(used) > 0 {
		had = used[0]
	}
	ours := slices.Contains(used, had) || slices.ContainsFunc(pools, had.Overlaps)
	if had.IsValid() && ours && !addresses.Overlap(had, others).IsValid() {
		return had, nil
	}
	all := &addresses.Taken{Prefixes: slices.Concat(others.Prefixes, c.host.Prefixes)}
	var p netip.Prefix
	err := errors.New("the host policy has no pool of that family (network.pool)")
	for _, pool := range pools {
		if p, err = addresses.Subnet(pool, bitsOf(pool), all); err == nil {
			break
		}
	}
	return p, exhausted(err)
}

// bitsOf is how large a subnet is that is chosen: 4093 sandboxes, or 253 where the pool is
// smaller than a /16.
func bitsOf(pool netip.Prefix) int {
	switch {
	case pool.Addr().Is6():
		return 64
	case pool.Bits() > 16:
		return 24
	}
	return 20
}

// others are the subnets of other networks that are in use, or were chosen.
func (c *choice) others(name string) (*addresses.Taken, error) {
	out := &addresses.Taken{}
	for network, ps := range c.used {
		if network != name {
			out.Prefixes = append(out.Prefixes, ps...)
		}
	}
	dir, err := c.k.open()
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list chosen subnets: %w", err)
	}
	for _, f := range names {
		other, is := cutSuffix(f)
		if !is || other == name {
			continue
		}
		s, err := readSubnets(dir, other)
		if err != nil {
			continue // of a network that can't be used until somebody has removed the file
		}
		for _, p := range []netip.Prefix{s.Subnet4, s.Subnet6} {
			if p.IsValid() {
				out.Prefixes = append(out.Prefixes, p)
			}
		}
	}
	return out, nil
}

func cutSuffix(file string) (name string, is bool) {
	const suffix = ".json"
	if len(file) <= len(suffix) || file[0] == '.' || file[len(file)-len(suffix):] != suffix {
		return "", false
	}
	return file[:len(file)-len(suffix)], true
}

// hasIPv6 says whether the kernel has IPv6.
func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6/conf/all/forwarding")
	return err == nil
}

// open opens the directory.
func (k *Keeper) open() (*os.File, error) {
	dir, err := untrusted.OpenDir(int(k.store.RootDir().Fd()), Directory)
	if err != nil {
		return nil, fmt.Errorf("open %s/%s: %w", k.store.Path(), Directory, err)
	}
	return dir, nil
}

// sweep removes temporary files.
func (k *Keeper) sweep() error {
	dir, err := k.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, err := atomicfile.SweepTemps(dir); err != nil {
		return fmt.Errorf("remove temporary files in %s/%s: %w", k.store.Path(), Directory, err)
	}
	return nil
}

func (k *Keeper) readSubnets(name string) (*subnets, error) {
	dir, err := k.open()
	if errors.Is(err, fs.ErrNotExist) {
		return &subnets{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	s, err := readSubnets(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return &subnets{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s/%s/%s.json: %w; remove the file when no sandbox of the network runs", k.store.Path(), Directory, name, err)
	}
	return s, nil
}

func readSubnets(dir *os.File, name string) (*subnets, error) {
	s := new(subnets)
	switch err := read(dir, name+".json", maxFile, s); {
	case err != nil:
		return nil, err
	case s.Version != version:
		return nil, fmt.Errorf("its version is %d, expected %d", s.Version, version)
	case s.Name != name:
		return nil, fmt.Errorf("it is of %q", s.Name)
	}
	return s, nil
}

// read reads a file of the state directory, or of one in it.
func read(dir *os.File, name string, most int64, into any) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := dirfd.ReadRegular(f, 0, most)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	return nil
}

func (k *Keeper) writeSubnets(s *subnets) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode subnets of network %s: %w", s.Name, err)
	}
	root := fsys.Of(k.store.RootDir())
	if err := root.Mkdir(Directory, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s/%s: %w", k.store.Path(), Directory, err)
	}
	dir, err := k.open()
	if err != nil {
		return err
	}
	defer dir.Close()
	err = crashpoint.Do(crashpoint.SubnetPut, func() error { return atomicfile.Write(dir, s.Name+".json", append(b, '\n'), 0o600) })
	if err != nil {
		return fmt.Errorf("record subnets of network %s: %w", s.Name, err)
	}
	return root.Sync()
}
