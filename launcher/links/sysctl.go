// SPDX-License-Identifier: Apache-2.0

package links

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// noAddress is the value of addr_gen_mode with which the kernel gives an interface no
// link-local address: nobody on a link of ours asks for a neighbor.
const noAddress = "1"

// sysctls of the host's end, for each family.
var sysctls = map[string]map[string]string{
	"ipv4": {
		// An answer to what was sent from 127.0.0.1 to a published port comes back here.
		"route_localnet": "1",
		// There is no other router on the link that the sandbox could be told of.
		"send_redirects":   "0",
		"accept_redirects": "0",
		// Also where the host does not for all of its interfaces.
		"forwarding": "1",
	},
	"ipv6": {
		// A sandbox must not give the host addresses and routes.
		"accept_ra": "0", "accept_redirects": "0", "autoconf": "0",
		"addr_gen_mode": noAddress,
	},
}

// without is for an end without IPv6, as the sandbox's always is for the kernel: it would have a
// link-local address, and believe who says that he is a router.
var without = map[string]string{"disable_ipv6": "1"}

// settings are those of the host's end of a link, by path.
func settings(a *Attachment) map[string]string {
	out := map[string]string{}
	for family, values := range sysctls {
		if family == "ipv6" && !a.Address6.IsValid() {
			if !hasIPv6() {
				continue
			}
			values = without
		}
		for name, v := range values {
			out[filepath.Join(root, family, "conf", a.Link, name)] = v
		}
	}
	return out
}

// setSysctls sets those of the host's end of a link.
func setSysctls(a *Attachment) error {
	for path, v := range settings(a) {
		if err := write(path, v); err != nil {
			return err
		}
	}
	return nil
}

// otherSysctls are those of the host's end that somebody has changed.
func otherSysctls(a *Attachment) (out []string, err error) {
	for path, v := range settings(a) {
		had, err := read(path)
		if err != nil {
			return nil, err
		}
		if had != v {
			out = append(out, fmt.Sprintf("%s is %s", path, had))
		}
	}
	slices.Sort(out)
	return out, nil
}

// hasIPv6 says whether the kernel has IPv6.
func hasIPv6() bool {
	_, err := os.Stat(filepath.Join(root, "ipv6/conf/all"))
	return err == nil
}

// root is where the kernel shows the settings of the calling thread's namespace.
const root = "/proc/sys/net"

func setSysctl(family, iface, name, value string) error {
	return write(filepath.Join(root, family, "conf", iface, name), value)
}

func write(path, value string) error {
	had, err := read(path)
	if err != nil {
		return err
	}
	if had == value {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set %s to %s: %w", path, value, err)
	}
	return nil
}

func read(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Change is a setting of the host that was changed.
type Change struct {
	// Path is its file.
	Path string `json:"path"`
	// Before and Now are its values.
	Before string `json:"before"`
	Now    string `json:"now"`
}

// Forwarding returns what has to be changed for the host to forward packets of the
// families. A host that forwards IPv6 takes no routes from routers any more, unless it is told
// to: those that it takes now are to be taken later too, or it would lose its network.
func Forwarding(v4, v6 bool) ([]Change, error) {
	var out []Change
	want := func(path, value string) error {
		had, err := read(path)
		if err == nil && had != value {
			out = append(out, Change{path, had, value})
		}
		return err
	}
	if v4 {
		if err := want(filepath.Join(root, "ipv4/ip_forward"), "1"); err != nil {
			return nil, err
		}
	}
	if !v6 {
		return out, nil
	}
	all := filepath.Join(root, "ipv6/conf/all/forwarding")
	on, err := read(all)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("the kernel has no IPv6: switch it off for the network (spec.ipv6: false)")
	}
	if err != nil || on == "1" {
		return out, err
	}
	paths, err := filepath.Glob(filepath.Join(root, "ipv6/conf/*/accept_ra"))
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	slices.Sort(paths)
	for _, p := range paths {
		// Not of ours, and not "all", which changes nothing.
		name := filepath.Base(filepath.Dir(p))
		had, err := read(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the interface is gone
		}
		if err != nil {
			return nil, err
		}
		if had == "1" && name != "all" && name != "lo" && !IsOurs(name) {
			out = append(out, Change{p, had, "2"})
		}
	}
	return append(out, Change{all, on, "1"}), nil
}

// Apply makes changes, in order. An interface that is gone needs none.
func Apply(changes []Change) error {
	for _, c := range changes {
		if err := write(c.Path, c.Now); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
